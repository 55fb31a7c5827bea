"""Runs schemathesis against a server: argv is URL, file of the root key, seed, requests per route and phase.

Three passes over every documented route: as a back end (root key), as a user (own token), and signed out. Random ids alone
would meet nothing but "no such channel", so the world of `SETUP` is made first and `hooks.py` puts its ids into half of what
is generated. Exit code 0: no 5xx, no undocumented status or content type, no answer that is not of its documented schema.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

URL, KEY_FILE, SEED, EXAMPLES = sys.argv[1:5]
ROOT = Path(KEY_FILE).read_text().strip()
HERE = Path(__file__).resolve().parent
ST = Path(sys.executable).parent / "st"
USER_TOKEN = "token-of-alice"

CHECKS = ",".join([
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
])

SETUP = [
    ("/user/token", {"uid": "alice", "token": USER_TOKEN}),
    ("/user/token", {"uid": "bob", "token": "token-of-bob"}),
    ("/user/token", {"uid": "carol", "token": "token-of-carol"}),
    ("/channel", {"channel_id": "team", "channel_type": 2, "subscribers": ["alice", "bob", "carol"]}),
    *[
        ("/message/send", {"from_uid": sender, "channel_id": channel, "channel_type": kind, "payload": payload,
                           "header": {"red_dot": 1}})
        for sender, channel, kind in [("alice", "bob", 1), ("bob", "alice", 1), ("carol", "alice", 1), ("bob", "team", 2)]
        for payload in ["eyJ0eXBlIjoxLCJjb250ZW50IjoiaGkifQ==", "eA==", "/wA="]
    ],
]


# Routes that answer without a credential.
OPEN = {"GET /health", "GET /healthz", "GET /readyz", "GET /openapi.json", "GET /docs"}


def both(credential):
    """A credential in either header, which must agree, and the application that the dialect relation asks for."""
    return {"Authorization": f"Bearer {credential}", "token": credential, "ApiKey": ROOT}


# Share of a pass's routes that it may fail to reach.
UNREACHED_MAX = 0.1


def post(path, body, uid=""):
    """One call of the setup, which must succeed."""
    headers = {"Authorization": f"Bearer {ROOT}", **({"x-chinwag-uid": uid} if uid else {})}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, content, headers), timeout=30) as answer:
        return json.load(answer)


def known():
    """Chats, messages and files that are there, for `hooks.py`."""
    group = post("/chats/groups", {"users": ["bob", "carol"], "name": "friends"}, "alice")["chatId"]
    text = {"type": "text", "content": "İstanbul 100%"}
    said = [post("/chats/messages", {**target, "message": text}, "alice") for target in
            [{"chatId": group}, {"userUUID": "bob"}, {"userUUID": "carol"}]]
    file = post("/api/v1/files?name=a.txt", b"text", "alice")["id"]
    post("/chats/messages", {"chatId": group, "message": {"type": "text", "files": [file]}}, "alice")
    chats = [group, *(answer["chatId"] for answer in said)]
    return {"chats": chats, "messages": [answer["id"] for answer in said], "groups": [group], "files": [file]}


def answers_of(file):
    """Statuses by route of the pass that wrote the file, printed."""
    answers = json.loads(file.read_text())
    for route, statuses in sorted(answers.items()):
        print(f"   {route:55} " + "  ".join(f"{status}×{n}" for status, n in sorted(statuses.items())))
    return answers


def fuzz(name, headers, examples, phases, reached, *more):
    """One pass; True when nothing was found and nearly every route gave an answer that `reached` takes."""
    print(f"\n-- {name}", flush=True)
    command = [
        str(ST), "run", f"{URL}/openapi.json", "--seed", SEED, "--max-examples", str(examples), "--phases", phases,
        "--checks", CHECKS, "--request-timeout", "20", "--continue-on-failure", "--max-failures", "100", "--no-color",
        "--generation-database", "none",
        "--generation-with-security-parameters", "false", "--warnings", "off", "--output-truncate", "true",
    ]
    command += more
    for header, value in headers.items():
        command += ["--header", f"{header}: {value}"]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "answers.json"
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SCHEMATHESIS_HOOKS": "hooks",
            "INTEROP_SEED": SEED,
            "INTEROP_URL": URL,
            "INTEROP_KEY": ROOT,
            "INTEROP_ANSWERS": str(file),
        }
        sound = subprocess.run(command, env=environment, cwd=directory, check=False).returncode == 0
        answers = answers_of(file)
    for route, statuses in sorted(answers.items()):
        if any(int(status) >= 500 for status in statuses):
            print(f"   {route}: {sorted(statuses)} holds a defect of the server")
            sound = False
    unreached = [route for route, statuses in sorted(answers.items()) if not any(reached(route, int(s)) for s in statuses)]
    for route in unreached:
        print(f"   {route}: only {sorted(answers[route])}, so this pass says nothing about it")
    # One or two are the dice's; more is a fuzzer that no longer gets in.
    if len(unreached) > len(answers) * UNREACHED_MAX:
        print(f"   {len(unreached)} of {len(answers)} routes were not reached")
        sound = False
    return sound


def main():
    for path, body in SETUP:
        post(path, body)
    spare = [post("/admin/keys", {"name": name, "scopes": ["read"]})["key_id"] for name in ("to rotate", "to revoke")]
    os.environ["INTEROP_SPARE_KEYS"] = ",".join(spare)
    os.environ["INTEROP_KNOWN"] = json.dumps(known())
    found = [
        not fuzz("a back end", {**both(ROOT), "x-chinwag-uid": "alice"}, EXAMPLES, "examples,coverage,fuzzing",
                 lambda route, status: status < 300),
        not fuzz("a user", both(USER_TOKEN), EXAMPLES, "fuzzing", lambda route, status: status != 401,
                 # An empty body signs the caller out, who is the fuzzer.
                 "--exclude-path", "/user/device_quit"),
        not fuzz("signed out", {}, max(1, int(EXAMPLES) // 8), "fuzzing",
                 lambda route, status: status == (200 if route in OPEN else 401)),
    ]
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
