"""WuKongIM's own clients, as npm and PyPI serve them, against the built server.

    sdks.py SERVER NODE_DIRECTORY DIRECTORY [SCENARIO …]

SERVER is the binary, NODE_DIRECTORY where js/package.json is installed, DIRECTORY an empty one for data and logs. The server
runs as a newcomer starts it; users get their tokens and groups their members over HTTP with the root key. Prints what was
checked; exit code 0: everything held.
"""

import asyncio
import itertools
import logging
import signal
import sys
import textwrap
import time
import traceback
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from wukong_easy_sdk import WKIMError
from world import (
    AUTH_FAIL, CONNECTED, DESKTOP, DISCONNECTED, GROUP, KICKED, NO_SUBSCRIBER, OTHER_DEVICE, PERSON, REFUSED, SUCCESS, WEB,
    Easy, Failed, Js, Native, Server, check,
)

# Most seconds of a scenario: several reconnects of the JavaScript SDK, each 3 s, on a busy machine.
SCENARIO_SECONDS = 60
ORDER = 500
UNICODE = "İstanbul 100% 你好 👋🏽 \"'\\ \u0000 end"


class Cast:
    """The clients of a scenario, ended with it."""

    def __init__(self, server, node, stack):
        self.server, self.node, self._stack = server, node, stack

    async def js(self, uid, *, token=None, level=0, connect=True, **more):
        """A user with the JavaScript SDK; connected and synced unless said otherwise."""
        token = await self.server.user(uid, WEB, level) if token is None else token
        client = await Js.open(self.node, self.server, uid, token, **more)
        self._stack.push_async_callback(client.close)
        if connect:
            await client.connect()
        return client

    async def easy(self, uid, *, token=None, level=0, connect=True, **more):
        """A user with the Python SDK; connected unless said otherwise."""
        token = await self.server.user(uid, DESKTOP, level) if token is None else token
        client = Easy(self.server, uid, token, **more)
        self._stack.push_async_callback(client.close)
        if connect:
            await client.sdk.connect()
        return client

    async def native(self, uid):
        """A user on the native wire."""
        client = await Native.connected(self.server, uid, await self.server.user(uid, 0))
        self._stack.push_async_callback(client.close)
        return client


async def refused(call):
    """The code with which the Python SDK fails."""
    try:
        got = await call
    except WKIMError as error:
        return error.code
    raise Failed(f"it succeeded: {got}")


def texts_of(messages):
    """What the messages say."""
    return [message["text"] for message in messages]


def ascending(numbers, what):
    """Every number is larger than the one before."""
    for before, after in itertools.pairwise(numbers):
        if before >= after:
            raise Failed(f"{what}: {after} behind {before}")


def numbered(prefix, count):
    """So many texts."""
    return [f"{prefix} {number}" for number in range(count)]


async def js_token(cast):
    """a wrong, an empty and a device's foreign token are ConnectFail with reason 2 and no reconnect; the right one connects"""
    right = await cast.server.user("ann", WEB)
    foreign = await cast.server.user("ann", DESKTOP)
    for token in ("wrong", "", foreign):
        client = await cast.js("ann", token=token, connect=False, sync=False)
        await client.ask("connect")
        await client.until("refused", lambda client=client: (REFUSED, AUTH_FAIL) in client.status)
        # The server closes behind its answer, and the SDK stays away: it would be back 3 s later.
        await client.until("closed", lambda client=client: client.status[-1] == (DISCONNECTED, 0))
        check((await client.ask("wire"))["sockets"], 1, "sockets opened with a wrong token")
        check(client.status, [(REFUSED, AUTH_FAIL), (DISCONNECTED, 0)], "states after a wrong token")
    client = await cast.js("ann", token=right)
    check(client.status, [(CONNECTED, SUCCESS)], "states")
    check((await client.ask("wire"))["texts"], 0, "text messages among WKProto's")


async def js_chat(cast):
    """person and group messages, their acks, ids, places and texts; a refusal names its reason"""
    ann, ben = await asyncio.gather(cast.js("ann"), cast.js("ben"))
    await cast.server.group("crew", ["ann", "ben"])
    await cast.server.group("others", ["ben"])
    for channel, kind, seen_by_ben in (("ben", PERSON, "ann"), ("crew", GROUP, "crew")):
        before = len(ben.live)
        ack, = await ann.acked(await ann.say(channel, kind, UNICODE))
        message = (await ben.heard("ann", before + 1))[-1]
        check((ack["reason"], ack["seq"]), (SUCCESS, 1), f"ack of {channel}")
        check({key: message[key] for key in ("text", "channel", "type", "id", "seq", "red")},
              {"text": UNICODE, "channel": seen_by_ben, "type": kind, "id": ack["id"], "seq": 1, "red": True},
              f"message to {channel}")
        if abs(message["timestamp"] - time.time()) > 60:
            raise Failed(f"timestamp {message['timestamp']}")
    ack, = await ann.acked(await ann.say("others", GROUP, "let me in"))
    check(ack["reason"], NO_SUBSCRIBER, "ack of a group one is not in")
    # An answer, so that all that was to come has come.
    await ben.acked(await ben.say("ann", PERSON, "back"))
    message, = await ann.heard("ben", 1)
    check((message["channel"], message["seq"], message["text"]), ("ben", 2, "back"), "the answer")
    check(texts_of(ben.live), [UNICODE, UNICODE], "everything ben got")


async def order(ann, ben, say, of_ann, of_ben):
    """500 messages each way at the same time: what is heard and answered."""
    await asyncio.gather(say(ann, ben.uid, of_ann), say(ben, ann.uid, of_ben))
    at_ben, at_ann = await asyncio.gather(ben.heard(ann.uid, len(of_ann), 30), ann.heard(ben.uid, len(of_ben), 30))
    check(texts_of(at_ben), of_ann, f"what {ben.uid} heard")
    check(texts_of(at_ann), of_ben, f"what {ann.uid} heard")
    places = [[message["seq"] for message in heard] for heard in (at_ben, at_ann)]
    for heard in places:
        ascending(heard, "places of messages as they came")
    check(sorted(itertools.chain(*places)), list(range(1, len(of_ann) + len(of_ben) + 1)), "places of all")


async def say_anyhow(client, to, texts):
    """All texts at once, answered; acks rise with the sends."""
    if isinstance(client, Js):
        acks = await client.acked(await client.say(to, PERSON, *texts), 30)
        places, reasons = [ack["seq"] for ack in acks], {ack["reason"] for ack in acks}
    elif isinstance(client, Easy):
        acks = await asyncio.gather(*(client.say(to, PERSON, text) for text in texts))
        places, reasons = [ack["messageSeq"] for ack in acks], {ack["reasonCode"] for ack in acks}
    else:
        acks = [await client.say(to, PERSON, text) for text in texts]
        places, reasons = [ack["message_seq"] for ack in acks], {SUCCESS}
    check(reasons, {SUCCESS}, f"reasons of {client.uid}")
    ascending(places, f"places in the acks of {client.uid}")


async def js_order(cast):
    """500 messages each way at the same time: each once, in the sender's order, at the place its ack names"""
    ann, ben = await asyncio.gather(cast.js("olga"), cast.js("otto"))
    await order(ann, ben, say_anyhow, numbered("from olga", ORDER), numbered("from otto", ORDER))


async def js_offline(cast):
    """who was away syncs conversations and messages over HTTP: all there, in order, with the right unread"""
    await cast.server.user("dan", WEB)
    ann = await cast.js("ida")
    await cast.server.group("desk", ["ida", "dan"])
    texts = numbered("while you were out", 130)
    await ann.acked(await ann.say("dan", PERSON, *texts))
    await ann.acked(await ann.say("desk", GROUP, *texts[:3]))
    dan = await cast.js("dan")
    check(sorted((row["channel"], row["type"], row["unread"]) for row in dan.synced[0]["conversations"]),
          [("desk", GROUP, 3), ("ida", PERSON, 130)], "conversations")
    check(dan.synced[0]["fetched"], 133, "messages fetched")
    check(dan.live, [], "messages pushed")
    for channel, kind, wanted in (("ida", PERSON, texts), ("desk", GROUP, texts[:3])):
        inbox = await dan.ask("inbox", channel=channel, type=kind)
        check(texts_of(inbox), wanted, f"messages of {channel}")
        check(inbox, await cast.server.stored("dan", channel, kind), f"rows of {channel}")
    check(dan.faults + ann.faults, [], "faults")


async def js_heartbeat(cast):
    """PINGs of the SDK are answered, and its one connection stays"""
    client = await cast.js("hal", heartbeat=50, sync=False)
    deadline = time.monotonic() + 10
    while (wire := await client.ask("wire"))["pongs"] < 20:
        if time.monotonic() > deadline:
            raise Failed(f"20 PONGs in 10 s: {wire}")
        await asyncio.sleep(0.05)
    if wire["pings"] > wire["pongs"] + 3:
        raise Failed(f"unanswered PINGs: {wire}")
    check((client.status, wire["sockets"], client.faults), ([(CONNECTED, SUCCESS)], 1, []), "one connection")


async def js_kick(cast):
    """a second login of the same device kind as master is ConnectKick for the first, which stays away; so is device_quit"""
    token = await cast.server.user("kim", WEB, 1)
    first = await cast.js("kim", token=token)
    second = await cast.js("kim", token=token)
    await first.until("kicked", lambda: (KICKED, OTHER_DEVICE) in first.status)
    await first.until("closed", lambda: first.status[-1] == (DISCONNECTED, 0))
    ben = await cast.js("kai")
    await ben.acked(await ben.say("kim", PERSON, "who is there?"))
    await second.heard("kai", 1)
    online = await cast.server.post("/user/onlinestatus", ["kim"])
    check([(row["uid"], row["device_flag"]) for row in online], [("kim", WEB)], "connections of kim")
    await cast.server.post("/user/device_quit", {"uid": "kim", "device_flag": WEB})
    await second.until("kicked", lambda: (KICKED, OTHER_DEVICE) in second.status)
    await second.until("closed", lambda: second.status[-1] == (DISCONNECTED, 0))
    check((first.live, [client.status for client in (first, second)]),
          ([], [[(CONNECTED, SUCCESS), (KICKED, OTHER_DEVICE), (DISCONNECTED, 0)]] * 2), "what the kicked one saw")
    for client in (first, second):
        check((await client.ask("wire"))["sockets"], 1, "sockets of who was kicked")


async def py_token(cast):
    """a wrong token fails with code 2 for good; the right one connects with every field the SDK knows"""
    await cast.server.user("pia", DESKTOP)
    wrong = await cast.easy("pia", token="wrong", connect=False)
    check(await refused(wrong.sdk.connect()), AUTH_FAIL, "code of a wrong token")
    await wrong.until("told", lambda: wrong.errors)
    check((wrong.errors, wrong.events), ([AUTH_FAIL], []), "what a wrong token makes it tell")
    pia = await cast.easy("pia", connect=False)
    result = await pia.sdk.connect()
    fields = {"serverKey": str, "salt": str, "timeDiff": int, "serverVersion": int, "nodeId": int}
    check({key: type(value) for key, value in result.items() if key in fields}, fields, "fields of the connect answer")


async def py_chat(cast):
    """one group of the Python SDK, the JavaScript SDK and a native client: everyone hears everyone, the same ids and places"""
    await cast.server.group("mixed", ["pam", "jim", "nat"])
    pam, jim, nat = await asyncio.gather(cast.easy("pam"), cast.js("jim"), cast.native("nat"))
    pam_said = await pam.say("mixed", GROUP, UNICODE)
    jim_said, = await jim.acked(await jim.say("mixed", GROUP, UNICODE))
    nat_said = await nat.say("mixed", GROUP, UNICODE)
    said = {
        "pam": (pam_said["messageId"], pam_said["messageSeq"]),
        "jim": (jim_said["id"], jim_said["seq"]),
        "nat": (str(nat_said["message_id"]), nat_said["message_seq"]),
    }
    for client, sender in itertools.permutations((pam, jim, nat), 2):
        message = (await client.heard(sender.uid, 1))[0]
        check({key: message[key] for key in ("text", "channel", "type", "id", "seq")},
              {"text": UNICODE, "channel": "mixed", "type": GROUP, "id": said[sender.uid][0], "seq": said[sender.uid][1]},
              f"{sender.uid} at {client.uid}")
    # And in pairs, there and back.
    for one, other in itertools.permutations((pam, jim, nat), 2):
        await say_anyhow(one, other.uid, [f"{one.uid} to {other.uid}"])
        message = (await other.heard(one.uid, 2))[1]
        check((message["text"], message["channel"], message["type"]), (f"{one.uid} to {other.uid}", one.uid, PERSON), "a pair")
    await cast.server.group("closed", ["jim"])
    check(await refused(pam.say("closed", GROUP, "let me in")), NO_SUBSCRIBER, "code of a group one is not in")
    check(pam.errors + jim.faults, [], "errors")


async def py_order(cast):
    """500 messages each way at the same time with the JavaScript SDK and with itself: each once, in the sender's order"""
    pol, jon, pat = await asyncio.gather(cast.easy("pol"), cast.js("jon"), cast.easy("pat"))
    await order(pol, jon, say_anyhow, numbered("from pol", ORDER), numbered("from jon", ORDER))
    await order(pol, pat, say_anyhow, numbered("from pol", ORDER), numbered("from pat", ORDER))
    check(pol.errors + pat.errors, [], "errors")


async def py_ping(cast):
    """pings are answered under their id, one by one and as the SDK's own heartbeat, and the one connection stays"""
    client = await cast.easy("pip", ping_interval=0.001, pong_timeout=5)
    for _ in range(50):
        await client.sdk.ping()
    check((client.sdk.is_connected, client.errors, client.connects()), (True, [], 1), "after 50 pings")


async def py_kick(cast):
    """a second login as master ends the first with code 12 for good; a disconnect of its own is clean and can come back"""
    token = await cast.server.user("peg", DESKTOP, 1)
    first = await cast.easy("peg", token=token)
    second = await cast.easy("peg", token=token)
    await first.until("kicked", lambda: OTHER_DEVICE in first.errors and first.events[-1][0] == "disconnect")
    check((first.errors, [event for event, _ in first.events]), ([OTHER_DEVICE], ["connect", "disconnect"]),
          "what the kicked one saw")
    await second.sdk.disconnect()
    await second.sdk.connect()
    await second.say("peg", PERSON, "note to self")
    await cast.server.post("/user/device_quit", {"uid": "peg", "device_flag": DESKTOP})
    await second.until("kicked", lambda: OTHER_DEVICE in second.errors)
    check(await refused(second.sdk.connect()), AUTH_FAIL, "code after the token was taken")


async def restarts(cast):
    """a drain, and a kill in the middle of sending: SDKs reconnect, repeat and sync; nothing is lost, nothing is double"""
    ann, ben, pia = await asyncio.gather(cast.js("rita"), cast.js("ruth"), cast.easy("rolf"))
    everyone = (ann, ben, pia)
    await cast.server.group("hardy", [client.uid for client in everyone])
    said = {client.uid: [] for client in everyone}
    # SENDs of the JavaScript clients whose acks are awaited at the end.
    open_sends = {ann: [], ben: []}

    async def burst(name, count=60):
        """Everyone sends; returns what of it must still end."""
        for client in (ann, ben):
            texts = numbered(f"{name} of {client.uid}", count)
            said[client.uid] += texts
            open_sends[client] += [*await client.say("hardy", GROUP, *texts)]
        texts = numbered(f"{name} of rolf", count)
        said["rolf"] += texts
        return asyncio.gather(*(pia.say_surely("hardy", GROUP, text, text.replace(" ", "-")) for text in texts))

    for round_number, (how, code) in enumerate([(signal.SIGTERM, 0), (signal.SIGKILL, -9)], 1):
        await (await burst(f"before {how.name}"))
        running = await burst(f"at {how.name}")
        # Something of it has arrived, and something has not.
        await ben.until("the burst arrives", lambda: any(f"at {how.name}" in m["text"] for m in ben.live + ann.live))
        # They go on while the server ends: a drain has its time, and what it refuses must come again.
        cast.server.process.send_signal(how)
        running = [running]
        while cast.server.process.returncode is None:
            running.append(await burst(f"behind {how.name} {len(running)}", 2))
        check(await cast.server.ended(), code, f"exit code after {how.name}")
        running.append(await burst(f"without a server, {how.name}"))
        await cast.server.start()
        for client in (ann, ben):
            await client.until("connected again", lambda client=client: client.connects() > round_number, 30)
            await client.until("synced", lambda client=client: len(client.synced) > round_number)
        await asyncio.gather(*running)
    for client, numbers in open_sends.items():
        check({ack["reason"] for ack in await client.acked(numbers, 30)}, {SUCCESS}, f"reasons of {client.uid}")
        check((await client.ask("wire"))["queued"], 0, f"SENDs {client.uid} would repeat")
    stored = await cast.server.stored("rolf", "hardy", GROUP)
    for uid, texts in said.items():
        there, wanted = Counter(texts_of(row for row in stored if row["from"] == uid)), Counter(texts)
        check((wanted - there, there - wanted), (Counter(), Counter()), f"what of {uid} is lost, and what is stored twice")
    check([row["seq"] for row in stored], list(range(1, len(stored) + 1)), "places stored")
    for client in (ann, ben):
        # The last of it may still be on its way to who has synced.
        while (inbox := await client.ask("inbox", channel="hardy", type=GROUP)) != stored:
            missing = {row["seq"] for row in stored} - {row["seq"] for row in inbox}
            if not missing:
                check(inbox, stored, f"messages of {client.uid}")
            await client.until(f"messages {sorted(missing)[:9]}", lambda client=client, missing=missing:
                               missing <= {message["seq"] for message in client.live})
        ids = [message["id"] for message in client.live]
        check(len(ids), len(set(ids)), f"messages pushed to {client.uid} and how many of them differ")
        check((client.faults, client.connects()), ([], 3), f"faults and connects of {client.uid}")
    ids = [message["id"] for message in pia.live]
    check(len(ids), len(set(ids)), "messages pushed to rolf and how many of them differ")
    check({text for text in texts_of(pia.live)} <= set(said["rita"] + said["ruth"]), True, "rolf heard what was said")


# Side by side, as many at a time as keep a small machine busy.
TOGETHER = (js_token, js_chat, js_offline, js_heartbeat, js_kick, js_order, py_token, py_chat, py_ping, py_kick, py_order)
AT_ONCE = 3
# Ends the server others would need.
ALONE = (restarts,)
SCENARIOS = {scenario.__name__: scenario for scenario in TOGETHER + ALONE}


async def held(server, node, scenario):
    """Runs a scenario and prints how it went; whether it held."""
    started, trouble = time.monotonic(), None
    try:
        async with asyncio.timeout(SCENARIO_SECONDS), AsyncExitStack() as stack:
            await scenario(Cast(server, node, stack))
    except Failed as failed:
        trouble = str(failed)
    except Exception:  # the rest of the scenarios still say what they have to say
        trouble = traceback.format_exc()
    took = f"{time.monotonic() - started:4.1f} s"
    print(f"{'FAIL' if trouble else 'ok  '}  {scenario.__name__:12} {took}  {scenario.__doc__}", flush=True)
    if trouble:
        print(textwrap.indent(trouble, "      "), flush=True)
    return not trouble


async def main(binary, node, directory, *names):
    """Runs the scenarios on one server; 0 when all held."""
    # It warns of each write to a socket that a killed server has left.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    chosen = [SCENARIOS[name] for name in names] or list(SCENARIOS.values())
    begun, server, turns = time.monotonic(), Server(binary, directory), asyncio.Semaphore(AT_ONCE)
    # Whoever ends this ends the processes it started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)

    async def in_turn(scenario):
        async with turns:
            return await held(server, node, scenario)

    try:
        await server.start()
        results = await asyncio.gather(*(in_turn(scenario) for scenario in chosen if scenario not in ALONE))
        results += [await held(server, node, scenario) for scenario in chosen if scenario in ALONE]
        server.process.send_signal(signal.SIGTERM)
        code = await server.ended()
    finally:
        if server.process and server.process.returncode is None:
            server.process.kill()
    failures = results.count(False)
    print(f"{failures} of {len(chosen)} failed, {time.monotonic() - begun:.1f} s; the server's exit code is {code}")
    return 1 if failures or code else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*(Path(argument) for argument in sys.argv[1:4]), *sys.argv[4:])))
