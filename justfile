# Everything that decides whether a change lands.
ci:
    bash .ci/run
