"""Puts ids that exist into requests that schemathesis makes, so that half of them reach what lies behind "no such user".

Deterministic for a seed. Credentials stay as given on the command line: what the fuzzer makes up for them would turn every
request into a 401 (and the pass "signed out" wants none at all).
"""

import atexit
import collections
import json
import os
import random

import schemathesis

CHOICE = random.Random(int(os.environ.get("CHINWAG_INTEROP_SEED", "0")))

USERS = ["alice", "bob", "carol"]
TEXTS = ["hi", "İstanbul 😀", "100%_.*", "x"]
# Of a field or parameter by its lowercase name without `_`: what exists.
KNOWN = {
    **dict.fromkeys(["uid", "fromuid", "loginuid", "userid", "useruuid", "to", "torelationid", "relationid"], USERS),
    **dict.fromkeys(["channelid", "groupuuid", "groupid"], ["team", *USERS]),
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
    "namespace": [""],
    "expire": [0, 3600],
    "setting": [0, 129],
    # Chat ids the server named in earlier answers: see `after_call`.
    **dict.fromkeys(["chatid", "thread", "threadid", "channeluuid", "id"], []),
    **dict.fromkeys(["messageid", "quoteid", "replyto", "before", "after"], []),
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


@schemathesis.hook
def before_call(context, case, kwargs):
    del context, kwargs
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
    spare_the_fuzzer(case)
    if case.operation.path == "/message/send" and isinstance(case.body, dict) and odds:
        # Documented as not offered.
        for key in ("subscribers", "stream_no", "is_stream"):
            case.body.pop(key, None)


def spare_the_fuzzer(case):
    """Users are signed out and keys are revoked, but not those the fuzzer itself holds."""
    path = case.operation.path
    if path in ("/user/token", "/user/device_quit") and isinstance(case.body, dict):
        if case.body.get("uid") in (None, "", *USERS):
            case.body["uid"] = "dave"
    if case.path_parameters and "key_id" in case.path_parameters:
        spare = os.environ["CHINWAG_INTEROP_SPARE_KEYS"].split(",")
        case.path_parameters["key_id"] = spare[path.endswith("/revoke")]


ANSWERS = collections.defaultdict(collections.Counter)


@atexit.register
def report():
    """Tells `fuzz.py` what was answered: statuses by route."""
    with open(os.environ["CHINWAG_INTEROP_ANSWERS"], "w", encoding="utf-8") as file:
        json.dump(ANSWERS, file)


@schemathesis.hook
def after_call(context, case, response):
    del context
    # Methods that the fuzzer tries besides the documented one are schemathesis' to judge.
    if case.method.lower() == case.operation.method.lower():
        ANSWERS[f"{case.method.upper()} {case.operation.path}"][response.status_code] += 1
    try:
        learn(response.json())
    except (ValueError, TypeError):
        return


def learn(value):
    """Remembers ids of chats and messages for later requests."""
    if isinstance(value, list):
        for inner in value[:20]:
            learn(inner)
    if isinstance(value, dict):
        for key, inner in value.items():
            name = name_of(key)
            if name in ("chatid", "thread", "threadid", "channeluuid") and isinstance(inner, str):
                for alike in ("chatid", "thread", "threadid", "channeluuid", "id"):
                    remember(alike, inner)
            elif name in ("messageid", "messageidstr", "id") and isinstance(inner, (str, int)):
                for alike in ("messageid", "quoteid", "replyto", "before", "after"):
                    remember(alike, inner)
            learn(inner)


def remember(name, value):
    seen = KNOWN[name]
    if value not in seen:
        seen.append(value)
        if len(seen) > SEEN_MAX:
            del seen[0]
