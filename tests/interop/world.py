"""What the scenarios of `sdks.py` stand on: the built server as a process, and one client of each kind.

Every wait is for a condition and has a deadline; whoever waits says what for.
"""

import asyncio
import base64
import json
import re
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import websockets
from websockets.asyncio.client import connect
from wukong_easy_sdk import AuthOptions, WKIM, WKIMError, WKIMEvent, WKIMOptions

HERE = Path(__file__).resolve().parent
# Most seconds for anything that needs no reconnect.
PATIENCE = 15
PERSON, GROUP = 1, 2
# How the JavaScript SDK names its states.
DISCONNECTED, CONNECTED, _CONNECTING, REFUSED, KICKED = range(5)
SUCCESS, AUTH_FAIL, NO_SUBSCRIBER, OTHER_DEVICE = 1, 2, 3, 12
WEB, DESKTOP = 1, 2
SYSTEM_ERROR = 15
# Codes of the Python SDK after which a program sends again: not connected, timed out, lost on the way, the server drains.
NOT_YET, AGAIN = -2, {-2, -4, -5, SYSTEM_ERROR}
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(Exception):
    """What a scenario found."""


def check(got, wanted, what):
    """Two values that must be equal."""
    if got != wanted:
        raise Failed(f"{what}: {shorten(got)} instead of {shorten(wanted)}")


def shorten(value):
    """A value for a line of text."""
    text = repr(value)
    return text if len(text) < 600 else f"{text[:500]} … {text[-90:]}"


class Told:
    """Something that is told things over time; whoever waits for a condition on it is woken by them."""

    def __init__(self):
        self._waiting = []

    def change(self):
        """Wakes everyone who waits."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.set()

    async def until(self, what, condition, seconds=PATIENCE):
        """Returns the condition's value as soon as it is true."""
        try:
            async with asyncio.timeout(seconds):
                while not (value := condition()):
                    waiter = asyncio.Event()
                    self._waiting.append(waiter)
                    await waiter.wait()
                return value
        except TimeoutError:
            raise Failed(f"after {seconds} s still not: {what}. {self.seen()}") from None

    def seen(self):
        """What there is to say when a wait was in vain."""
        return ""


class Server:
    """The server as a newcomer starts it: no settings but where it listens and keeps its data."""

    def __init__(self, binary, directory):
        self.binary, self.directory = str(binary), Path(directory)
        self.log = self.directory / "log"
        self.socket = self.http = self.process = self.key = None

    def command(self):
        """How it is started: on free ports, or on the addresses it had before."""
        socket = self.socket.removeprefix("ws://") if self.socket else "127.0.0.1:0"
        http = self.http.removeprefix("http://") if self.http else "127.0.0.1:0"
        return [self.binary, "serve", "--data-dir", str(self.directory / "data"), "--listen-socket", socket,
                "--listen-http", http, "--wukong-tcp-listen", "127.0.0.1:0"]

    def environment(self):
        """Its environment; `None`: this program's."""

    async def start(self):
        """Starts it; returns when it listens."""
        banner = self.directory / "banner"
        with banner.open("wb") as out, self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command(), stdout=out, stderr=log, cwd=self.directory, env=self.environment())
        begun = time.monotonic()
        # The banner is written when both listen.
        while not (found := re.search(r"sockets +(ws:\S+)[^$]*http +(http:\S+)", banner.read_text())):
            if self.process.returncode is not None:
                raise Failed(f"the server ended with {self.process.returncode} at its start")
            if time.monotonic() > begun + PATIENCE:
                raise Failed(f"after {PATIENCE} s still not: where it listens. It said {shorten(banner.read_text())}")
            await asyncio.sleep(0.02)
        self.socket, self.http = found.groups()
        self.key = (self.directory / "data/root.key").read_text().strip()

    async def ended(self):
        """Waits for the end of the process; its exit code."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    async def post(self, path, body, token=None):
        """One call that must succeed; as the back end when no token is given."""
        headers = {"token": token or self.key, "content-type": "application/json"}
        request = urllib.request.Request(self.http + path, json.dumps(body).encode(), headers)

        def call():
            with NO_PROXY.open(request, timeout=PATIENCE) as answer:
                return json.load(answer)

        return await asyncio.to_thread(call)

    async def user(self, uid, flag=WEB, level=0):
        """Gives a user's device kind a token, and returns it."""
        token = f"token-of-{uid}-{flag}"
        await self.post("/user/token", {"uid": uid, "token": token, "device_flag": flag, "device_level": level})
        return token

    async def group(self, name, members):
        """Makes a group."""
        await self.post("/channel", {"channel_id": name, "channel_type": GROUP, "subscribers": members})

    async def stored(self, uid, channel, kind):
        """All messages of a channel as a member reads them from the back end."""
        rows, more = [], True
        while more:
            page = await self.post("/channel/messagesync", {
                "login_uid": uid, "channel_id": channel, "channel_type": kind,
                "start_message_seq": len(rows) + 1, "limit": 1000, "pull_mode": 1})
            rows += page["messages"]
            more = page["messages"] and page["more"]
        return [{
            "seq": row["message_seq"], "id": row["message_idstr"], "no": row["client_msg_no"], "from": row["from_uid"],
            "text": json.loads(base64.b64decode(row["payload"]))["content"],
        } for row in rows]


class Js(Told):
    """A user with the JavaScript SDK: the process `js/client.mjs`."""

    @classmethod
    async def open(cls, node, server, uid, token, *, sync=True, heartbeat=None, route=False):
        """Starts the process, without connecting. `route`: the SDK asks the server where to connect."""
        js = cls()
        js.uid, js.status, js.live, js.acks, js.synced, js.faults = uid, [], [], [], [], []
        js._answers, js._next, js._syncs = {}, 0, sync
        js.log = server.directory / f"js-{uid}-{id(js):x}.log"
        with js.log.open("wb") as log:
            js.process = await asyncio.create_subprocess_exec(
                "node", str(HERE / "js/client.mjs"), str(node), stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=log, limit=1 << 24)
        js._reader = asyncio.create_task(js._read())
        await js.ask("configure", uid=uid, token=token, address=server.socket, url=server.http, sync=sync,
                     heartbeat=heartbeat, route=route)
        return js

    @classmethod
    async def connected(cls, *args, **more):
        """Starts the process and connects."""
        js = await cls.open(*args, **more)
        await js.connect()
        return js

    async def connect(self):
        """Connects, and has synced."""
        await self.ask("connect")
        await self.until("CONNACK says success", lambda: (CONNECTED, SUCCESS) in self.status)
        if self._syncs:
            await self.until("synced", lambda: self.synced)

    async def _read(self):
        lists = {"status": self.status, "message": self.live, "ack": self.acks, "synced": self.synced, "fault": self.faults}
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            if event := said.pop("event", None):
                lists[event].append((said["status"], said["reason"]) if event == "status" else said)
                self.change()
            else:
                self._answers.pop(said["id"]).set_result(said)

    async def ask(self, verb, **more):
        """One command of the process, and its answer."""
        self._next += 1
        answer = self._answers[self._next] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps({"id": self._next, "do": verb, **more}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            said = await answer
        if "error" in said:
            raise Failed(f"{self.uid}: {verb}: {said['error']}")
        return said["ok"]

    async def say(self, channel, kind, *texts):
        """Sends texts without waiting; the numbers of their SENDs."""
        sent = await self.ask("send", channel=channel, type=kind, texts=texts)
        return range(sent["first"], sent["first"] + sent["count"])

    async def acked(self, numbers, seconds=PATIENCE):
        """The acks of SENDs, in the order of the SENDs."""
        def all_of_them():
            got = {ack["client_seq"]: ack for ack in self.acks}
            return all(number in got for number in numbers) and got

        got = await self.until(f"{len(numbers)} SENDs answered", all_of_them, seconds)
        return [got[number] for number in numbers]

    async def heard(self, sender, count, seconds=PATIENCE):
        """The first so many messages of a sender that were pushed, in the order they came."""
        def of_sender():
            return [message for message in self.live if message["from"] == sender]

        await self.until(f"{count} messages of {sender}", lambda: len(of_sender()) >= count, seconds)
        return of_sender()

    def connects(self):
        """How often it has connected."""
        return self.status.count((CONNECTED, SUCCESS))

    def seen(self):
        """For a wait in vain."""
        return (f"{self.uid} (JavaScript): status {self.status[-6:]}, {len(self.live)} messages, {len(self.acks)} acks, "
                f"faults {shorten(self.faults)}, its log: {self.log.read_text()[-1500:]}")

    async def close(self):
        """Ends the process."""
        with suppress(ProcessLookupError, ConnectionError):
            self.process.stdin.close()
            async with asyncio.timeout(PATIENCE):
                await self.process.wait()
        await self._reader


class Easy(Told):
    """A user with the Easy SDK from PyPI, over JSON-RPC."""

    def __init__(self, server, uid, token, flag=DESKTOP, *, address=None, **options):
        super().__init__()
        self.uid, self.live, self.errors, self.events = uid, [], [], []
        auth = AuthOptions(uid=uid, token=token, device_flag=flag)
        # Its own queue of events ends the connection at 256: fewer than one read from the socket may bring.
        options = {"reconnect_delay": 0.1, "max_reconnect_attempts": 30, "max_event_queue": 4096, **options}
        self.sdk = WKIM.init(address or server.socket, auth, WKIMOptions(**options))
        self.sdk.on(WKIMEvent.MESSAGE, self._message)
        self.sdk.on(WKIMEvent.ERROR, self._error)
        for event in (WKIMEvent.CONNECT, WKIMEvent.DISCONNECT, WKIMEvent.RECONNECTING):
            self.sdk.on(event, lambda value, event=event: self._event(event, value))

    def _message(self, message):
        self.live.append({
            "seq": message["messageSeq"], "id": message["messageId"], "no": message["clientMsgNo"],
            "from": message["fromUid"], "text": message["payload"]["content"], "channel": message["channelId"],
            "type": message["channelType"], "red": message["header"]["redDot"], "timestamp": message["timestamp"],
        })
        self.change()

    def _error(self, error):
        self.errors.append(error.code)
        self.change()

    def _event(self, event, value):
        self.events.append((event.value, value))
        self.change()

    async def say(self, channel, kind, text, number=None):
        """Sends a text; what the server answered."""
        return await self.sdk.send(channel, kind, {"type": 1, "content": text}, client_msg_no=number)

    async def say_surely(self, channel, kind, text, number):
        """Sends a text until it is taken, under one client_msg_no: the SDK does not repeat by itself."""
        while True:
            connects = self.connects()
            try:
                return await self.say(channel, kind, text, number)
            except WKIMError as error:
                if error.code not in AGAIN:
                    raise
                await self.until("connected again", lambda: self.connects() > connects or error.code == NOT_YET
                                 and self.sdk.is_connected, 30)

    heard = Js.heard

    def connects(self):
        """How often it has connected."""
        return sum(event == "connect" for event, _ in self.events)

    def seen(self):
        """For a wait in vain."""
        return f"{self.uid} (Python): {self.events[-6:]}, errors {self.errors}, {len(self.live)} messages"

    async def close(self):
        """Ends it."""
        await self.sdk.destroy()


class Native(Told):
    """A user on the native wire (docs/wire.md), in JSON."""

    @classmethod
    async def connected(cls, server, uid, token):
        """Connects."""
        native = cls()
        native.uid, native.live, native.acks = uid, [], {}
        native._socket = await connect(server.socket, subprotocols=["chinwag.v1.json"], proxy=None)
        await native._socket.send(json.dumps({"connect": {"token": token, "device_id": "native"}}))
        if "connected" not in json.loads(await native._socket.recv()):
            raise Failed("no native session")
        native._reader = asyncio.create_task(native._read())
        return native

    async def _read(self):
        with suppress(websockets.ConnectionClosed):
            async for text in self._socket:
                (kind, frame), = json.loads(text).items()
                if kind == "deliver":
                    self.live += [{
                        "seq": message["message_seq"], "id": str(message["message_id"]), "no": message["client_msg_no"],
                        "from": message["from_uid"], "text": json.loads(base64.b64decode(message["payload"]))["content"],
                        "channel": frame["channel_id"], "type": frame["channel_type"],
                    } for message in frame["messages"]]
                elif kind == "ack":
                    self.acks[frame["client_seq"]] = frame
                elif kind == "ping":
                    await self._socket.send(json.dumps({"pong": frame}))
                self.change()

    async def say(self, channel, kind, text):
        """Sends a text; its ack."""
        number = len(self.acks) + 1
        payload = base64.b64encode(json.dumps({"type": 1, "content": text}).encode()).decode()
        await self._socket.send(json.dumps({"send": {
            "client_seq": number, "channel_id": channel, "channel_type": kind, "client_msg_no": f"native-{number}",
            "payload": payload, "red_dot": True}}))
        return await self.until("acked", lambda: self.acks.get(number))

    heard = Js.heard

    async def close(self):
        """Ends it."""
        await self._socket.close()
        await self._reader
