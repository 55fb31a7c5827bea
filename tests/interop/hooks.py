"""Puts ids that exist into requests that schemathesis makes, so that half of them reach what lies behind "no such user".

Deterministic for a seed. Credentials stay as given on the command line: what the fuzzer makes up for them would turn every
request into a 401 (and the pass "signed out" wants none at all).
"""

import atexit
import collections
import contextlib
import itertools
import json
import os
import random
import urllib.error
import urllib.request

import schemathesis

CHOICE = random.Random(int(os.environ.get("INTEROP_SEED", "0")))

THERE = json.loads(os.environ["INTEROP_KNOWN"])
CHATS = ("chatid", "thread", "threadid", "channeluuid")
MESSAGES = ("messageid", "quoteid", "replyto", "before", "after", "beforeid")
TARGETS = ("chatid", "thread", "channeluuid", "useruuid", "useruuids", "userids", "groupuuid", "groupid", "to",
           "torelationid")
USERS = ["alice", "bob", "carol"]
TEXTS = ["hi", "İstanbul 😀", "100%_.*", "x"]
# Of a field or parameter by its lowercase name without `_`: what exists.
KNOWN = {
    **dict.fromkeys(["uid", "fromuid", "loginuid", "userid", "useruuid", "fromrelationid", "peer", "member", "to",
                     "torelationid", "relationid"], USERS),
    "channelid": ["team", *USERS],
    **dict.fromkeys(["userids", "useruuids", "users", "subscribers", "members"], [["bob"], ["bob", "carol"], USERS]),
    "channeltype": [1, 2],
    "payload": ["eyJ0eXBlIjoxLCJjb250ZW50IjoiaGkifQ==", "eA"],
    **dict.fromkeys(["content", "text", "subject", "search"], TEXTS),
    **dict.fromkeys(["header"], [{}, {"red_dot": 1}]),
    **dict.fromkeys(["large", "ban", "disband", "sendban", "allowstranger", "reset", "tempsubscriber", "isstream"], [0]),
    **dict.fromkeys(["version", "startmessageseq", "endmessageseq", "messageseq", "unread"], [0, 1, 3, 9]),
    **dict.fromkeys(["limit", "msgcount", "page", "pagesize", "skip"], [0, 1, 5, 100]),
    "lastmsgseqs": ["", "bob:1:1", "team:2:1|bob:1:0"],
    **dict.fromkeys(["streamno", "topic"], ["", "t"]),
    **dict.fromkeys(["clientmsgno", "senduuid", "clientid"], ["", "m1", "m2", "m3"]),
    **dict.fromkeys(["name", "icon", "desc", "description"], ["", "a name"]),
    "token": ["token-of-dave"],
    "deviceflag": [0, 1, 2],
    "devicelevel": [0, 1],
    "scopes": [["send"], ["read", "send"]],
    "namespace": [None],
    **dict.fromkeys(["mentions", "mentioneduser", "files"], [[], [], ["bob"]]),
    "type": ["text", "text", "link", "TEXT", "custom"],
    "role": ["member", "admin"],
    "blocked": [False],
    "strangers": ["allow", "quarantine"],
    **dict.fromkeys(["deviceflag"], [0, 1]),
    **dict.fromkeys(["startat", "endat", "maxcreateat"], ["", "2100-01-01T00:00:00Z", "0"]),
    "message": [{"type": "text", "content": "hi"}],
    "group": [""],
    "expire": [0, 3600],
    "setting": [0, 129],
    # What the setup made, and what the server named since: see `after_call`.
    **{name: list(THERE["chats"]) for name in CHATS},
    **{name: list(THERE["messages"]) for name in MESSAGES},
    **{name: THERE["groups"] for name in ("groupuuid", "groupid")},
    "file": THERE["files"],
}
SEEN_MAX = 50


def name_of(key):
    return str(key).replace("_", "").lower()


def known(value, odds):
    """The value with ids that exist in place of some made-up ones, keys kept."""
    if isinstance(value, dict):
        return {key: choose(key, inner, odds) for key, inner in value.items()}
    if isinstance(value, list):
        return [known(inner, odds) for inner in value]
    return value


def choose(key, value, odds):
    choices = KNOWN.get(name_of(key))
    if choices and CHOICE.random() < odds:
        return CHOICE.choice(choices)
    return known(value, odds)


def heal():
    """Groups are left, disbanded and given away by what is fuzzed; now and then they are as the setup made them."""
    for group in THERE["groups"] + ["team"]:
        for path, body in [("/channel", {"subscribers": USERS}),
                           ("/channel/role", {"member": "alice", "role": "owner"})]:
            content = json.dumps({"channel_id": group, "channel_type": 2, **body}).encode()
            headers = {"Authorization": f"Bearer {os.environ['INTEROP_KEY']}"}
            request = urllib.request.Request(os.environ["INTEROP_URL"] + path, content, headers)
            urllib.request.urlopen(request, timeout=30).close()
    for name in (HOOK, SPARE_HOOK):
        content = json.dumps({"name": name, "url": NOBODY, "events": ["msg.notify", "msg.offline"]}).encode()
        request = urllib.request.Request(os.environ["INTEROP_URL"] + "/admin/webhooks", content, headers)
        # Most times it is there: its name is taken.
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=30).close()


# Webhook endpoints that are there, and one that is removed; they call a port that nobody has.
HOOK, SPARE_HOOK, NOBODY = "fuzzed", "spare", "http://127.0.0.1:9/hook"
HEAL_EVERY = 20
CALLS = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    del context, kwargs
    if next(CALLS) % HEAL_EVERY == 0:
        heal()
    # A tenth stays as made up, half is a little wrong, the rest makes sense as a whole.
    odds = CHOICE.choice([0.0] + [0.9] * 5 + [1.0] * 4)
    if isinstance(case.body, (dict, list)):
        case.body = known(case.body, odds)
        if isinstance(case.body, list) and case.operation.path.endswith("/onlinestatus") and CHOICE.random() < odds:
            case.body = list(USERS)
    for part in (case.query, case.path_parameters):
        if part:
            for key in list(part):
                part[key] = choose(key, part[key], odds)
    if case.headers and odds:
        # A tenant nobody is in, and names that no two requests share, say little.
        case.headers.pop("micro-namespace", None)
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = CHOICE.choice(["", "m1", "m2", "m3"])
    by_path(case, odds)
    of_webhooks(case, odds)
    if isinstance(case.body, dict) and odds:
        # One target: several that do not agree are a 400 by every document.
        also = ("userid",) if case.operation.path == "/chats/messages" else ()
        there = [key for key in case.body if name_of(key) in TARGETS + also]
        for key in there[1:] if CHOICE.random() < odds else []:
            case.body.pop(key)
    spare_the_fuzzer(case)
    if case.operation.path == "/message/send" and isinstance(case.body, dict) and odds:
        # Documented as not offered.
        for key in ("subscribers", "stream_no", "is_stream"):
            case.body.pop(key, None)


def by_path(case, odds):
    """`{id}` means what its path says."""
    if case.path_parameters and "id" in case.path_parameters and CHOICE.random() < odds:
        path = case.operation.path
        kind = "messageid" if "/messages/" in path else "groupid" if "/groups/" in path else "file"
        if KNOWN.get(kind):
            case.path_parameters["id"] = CHOICE.choice(KNOWN[kind])


def of_webhooks(case, odds):
    """Endpoints that are there, and settings that make sense together."""
    if not case.operation.path.startswith("/admin/webhooks"):
        return
    if case.path_parameters:
        # A name that is none is another path, or none.
        removes = case.method == "DELETE" and not case.operation.path.endswith("/dead")
        case.path_parameters["name"] = SPARE_HOOK if removes else HOOK
    if isinstance(case.body, dict):
        sound = {"name": f"made-{CHOICE.randrange(9)}", "url": NOBODY, "events": ["msg.notify"], "event": "msg.notify",
                 "messages": 1}
        for key in [key for key in case.body if CHOICE.random() < odds]:
            if key in sound:
                case.body[key] = sound[key]
            elif key not in ("version", "from_version"):
                # Numbers and keys that are in their ranges are few among all.
                case.body.pop(key)
        if not case.path_parameters and odds:
            case.body = {key: value for key, value in (sound | case.body).items() if key not in ("event", "messages")}


def spare_the_fuzzer(case):
    """Users are signed out and keys are revoked, but not those the fuzzer itself holds."""
    path = case.operation.path
    if path == "/api/v1/contacts/block" and isinstance(case.body, dict) and case.body.get("relationId"):
        case.body["relationId"] = "dave"
    if path == "/api/v1/auth" and isinstance(case.body, dict) and case.body.get("relationId"):
        case.body["relationId"] = "dave"
    if path in ("/user/token", "/user/device_quit") and isinstance(case.body, dict):
        if case.body.get("uid") in (None, "", *USERS):
            case.body["uid"] = "dave"
    if case.path_parameters and "key_id" in case.path_parameters:
        spare = os.environ["INTEROP_SPARE_KEYS"].split(",")
        case.path_parameters["key_id"] = spare[path.endswith("/revoke")]


ANSWERS = collections.defaultdict(collections.Counter)


@atexit.register
def report():
    """Tells `fuzz.py` what was answered: statuses by route."""
    with open(os.environ["INTEROP_ANSWERS"], "w", encoding="utf-8") as file:
        json.dump(ANSWERS, file)


@schemathesis.hook
def after_call(context, case, response):
    del context
    try:
        answer = response.json()
    except (ValueError, TypeError):
        answer = None
    # Methods that the fuzzer tries besides the documented one are schemathesis' to judge.
    if case.method.lower() == case.operation.method.lower():
        ANSWERS[f"{case.method.upper()} {case.operation.path}"][status_of(response.status_code, answer)] += 1
    learn(answer)


def status_of(status, answer):
    """The HTTP status, or what it would be: the dialect relation says everything with 200 and a code in the body."""
    if status != 200 or not isinstance(answer, dict) or not isinstance(answer.get("code"), str) or "desc" not in answer:
        return status
    code = answer["code"]
    return {"0": 200, "10100": 401, "10101": 401, "10102": 401, "10103": 403, "10110": 429, "10111": 503, "10113": 404,
            "10500": 500}.get(code, 403 if code.startswith("13") else 400)


def learn(value):
    """Remembers ids of chats and messages for later requests."""
    if isinstance(value, list):
        for inner in value[:20]:
            learn(inner)
    if isinstance(value, dict):
        for key, inner in value.items():
            name = name_of(key)
            if name in CHATS and isinstance(inner, str):
                for alike in CHATS:
                    remember(alike, inner)
            elif name in ("messageid", "messageidstr", "id") and isinstance(inner, (str, int)) and str(inner).isdigit():
                for alike in MESSAGES:
                    remember(alike, inner)
            learn(inner)


def remember(name, value):
    seen = KNOWN[name]
    if value not in seen:
        seen.append(value)
        if len(seen) > SEEN_MAX:
            # The first stay: what the setup made is what most requests can use.
            del seen[SEEN_MAX // 2]
