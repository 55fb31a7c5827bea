# Everything that decides whether a change lands.
ci:
    bash .ci/run

# WuKongIM's clients from npm and PyPI, and random requests made from the API's own document by a fuzzer from PyPI; with a
# seed to look further than CI does. One part alone: tests/interop/sdks, tests/interop/newcomer, tests/interop/api
interop seed="1":
    tests/interop/run {{seed}}

# Damaged frames, made from the vectors, to every decoder that reads what a stranger sends; protocol/tests/fuzz.rs.
fuzz frames="100000000" seed="1":
    CHINWAG_FUZZ_FRAMES={{frames}} CHINWAG_FUZZ_SEED={{seed}} cargo test --release -p chinwag-protocol --test fuzz -- --nocapture

# Clients, faults and a checker of what they saw, for as many rounds as wanted; docs/faults.md.
history rounds="100" seed="1":
    CHINWAG_HISTORY_ROUNDS={{rounds}} CHINWAG_HISTORY_SEED={{seed}} cargo test --test history every_promise -- --nocapture

# Licences, sources and advisories of dependencies (deny.toml). Not part of `ci`: cargo-deny takes longer to build than the
# server, and the advisories come from a repository that a build machine may not reach. `cargo install --locked cargo-deny`
deny:
    cargo deny --locked check
