"""The server as its documents start it, and what they say to do next.

    newcomer.py REPOSITORY BINARIES NODE_DIRECTORY DIRECTORY

BINARIES is the directory of the built profile, DIRECTORY an empty one: where the newcomer stands. The README's first command
is run there (with the path of the manifest, because nothing else is there), and so are the lines of the README's "Back ends"
and of docs/wukong.md. Prints what was checked; exit code 0: everything held.
"""

import asyncio
import fcntl
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path

from wkproto import Tcp
from world import GROUP, NO_PROXY, PATIENCE, PERSON, SUCCESS, Easy, Failed, Js, Server, check

# As the README says them.
SOCKET, TCP, HTTP = "ws://127.0.0.1:5200", "127.0.0.1:5100", "http://127.0.0.1:5001"
# How Linux is asked for, and told, whether a network device is up.
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1


def raise_loopback():
    """A network of one's own begins with its loopback down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sH14x", b"lo", 0)
        flags, = struct.unpack("16xH14x", fcntl.ioctl(any_socket, GET_FLAGS, asked))
        if not flags & UP:
            fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", flags | UP))


def need_free_ports():
    """Says which port somebody else has: this test is about these ports."""
    for address in (SOCKET, TCP, HTTP):
        port = int(address.rsplit(":", 1)[1])
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                door.bind(("127.0.0.1", port))
            except OSError as error:
                raise Failed(f"port {port} of the README's first command is not free: {error}. End what listens there; no "
                             "network of its own could be made on this machine (unshare --net)") from None


def block(text, after, holds):
    """The first shell block behind a heading that holds a word."""
    behind = text[text.index(after):]
    for found in re.finditer(r"^```sh\n(.*?)^```$", behind, re.MULTILINE | re.DOTALL):
        if holds in found[1]:
            return found[1]
    raise Failed(f"there is no block with {holds!r} behind {after!r}")


class Started(Server):
    """The server of the README's first command."""

    def __init__(self, repository, binaries, directory):
        super().__init__(binaries / "chinwag", directory)
        self._repository, self._profile = repository, binaries.name
        first = block((repository / "README.md").read_text(), "## Start", "cargo").splitlines()[0]
        check(first, "cargo run --release", "the README's first command")
        self._command = shlex.split(first)

    def command(self):
        words = [word for word in self._command if word != "--release" or self._profile == "release"]
        return [*words, "--locked", "--manifest-path", str(self._repository / "Cargo.toml")]

    def environment(self):
        toolchain = re.search(r'channel = "(.+)"', (self._repository / "rust-toolchain.toml").read_text())[1]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CHINWAG_")}
        # In the repository its file says which; everything that is needed is there.
        return {**clean, "RUSTUP_TOOLCHAIN": toolchain, "CARGO_NET_OFFLINE": "true", "CARGO_TERM_QUIET": "true",
                "PATH": f"{Path(self.binary).parent}:{os.environ['PATH']}"}

    def types(self, lines):
        """Lines in another terminal, in the same directory; the JSON they print, one value after the other."""
        done = subprocess.run(["bash", "-euc", lines], cwd=self.directory, env={**self.environment(), "no_proxy": "*"},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise Failed(f"exit code {done.returncode} of\n{lines}\n{done.stdout}{done.stderr}")
        values, left = [], done.stdout.strip()
        while left:
            value, end = json.JSONDecoder().raw_decode(left)
            if isinstance(value, dict) and value.get("status", 200) != 200:
                raise Failed(f"refused: {value} by\n{lines}")
            values, left = [*values, value], left[end:].strip()
        return values


def step(text):
    """Says what held."""
    print(f"ok    {text}", flush=True)


async def get(path, token):
    """One GET with a user's token."""
    request = urllib.request.Request(HTTP + path, headers={"token": token})

    def call():
        with NO_PROXY.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    return await asyncio.to_thread(call)


async def say(client, channel, kind, text):
    """One text by any client; its id and place."""
    if isinstance(client, Js):
        ack, = await client.acked(await client.say(channel, kind, text))
        check(ack["reason"], SUCCESS, f"reason {client.uid} gets")
        return ack["id"], ack["seq"]
    if isinstance(client, Tcp):
        ack, = await client.say(channel, kind, text)
        check(ack["reason"], SUCCESS, f"reason {client.uid} gets")
        return ack["id"], ack["seq"]
    answer = await client.say(channel, kind, text)
    return str(answer["messageId"]), answer["messageSeq"]


async def chat(server, ann, ben, cat):
    """Everyone to everyone, in pairs and in the group; then what each sees as conversations."""
    everyone = (ann, ben, cat)
    for one in everyone:
        for other in everyone:
            if one is other:
                continue
            text, before = f"{one.uid} to {other.uid}", len([m for m in other.live if m["from"] == one.uid])
            told_id, seq = await say(one, other.uid, PERSON, text)
            message = (await other.heard(one.uid, before + 1))[-1]
            check({key: message[key] for key in ("text", "channel", "type", "id", "seq")},
                  {"text": text, "channel": one.uid, "type": PERSON, "id": told_id, "seq": seq}, text)
    for place, one in enumerate(everyone, 1):
        text = f"{one.uid} to all"
        told_id, seq = await say(one, "trio", GROUP, text)
        check(seq, place, "place in the group")
        for other in everyone:
            if other is not one:
                def there(other=other, told_id=told_id):
                    return next((m for m in other.live if m["id"] == told_id), None)
                message = await other.until(f"{text} at {other.uid}", there)
                check((message["text"], message["channel"], message["type"], message["seq"]), (text, "trio", GROUP, seq), text)
    await cat.ping()
    for one in everyone:
        rows = await server.post("/conversation/sync", {"uid": one.uid, "version": 0, "msg_count": 5},
                                 f"secret-of-{one.uid}")
        seen = {(row["channel_id"], row["channel_type"]): (row["unread"], row["last_msg_seq"], len(row["recents"]))
                for row in rows}
        # The pair's last word is the other's for the first of them, and own sends move the read position.
        pairs = {(other.uid, PERSON): (1 if everyone.index(one) < everyone.index(other) else 0, 2, 2)
                 for other in everyone if other is not one}
        unread = len(everyone) - 1 - everyone.index(one)
        check(seen, {**pairs, ("trio", GROUP): (unread, 3, 3)}, f"conversations of {one.uid}: unread, last place, messages")


async def main(repository, binaries, node, directory):
    """Everything in the order a newcomer meets it; 0 when it held."""
    begun, server = time.monotonic(), Started(repository, binaries, directory)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    try:
        async with AsyncExitStack() as stack:
            if sys.platform == "linux":
                raise_loopback()
            need_free_ports()
            await server.start()
            check((server.socket, server.http, f"tcp://{TCP}\n" in (directory / "banner").read_text()), (SOCKET, HTTP, True),
                  "where it says it listens")
            step(f"{shlex.join(server.command())} listens where the README says")
            *_, rows = server.types(block((repository / "README.md").read_text(), "## Back ends", "root.key"))
            row, = rows
            check((row["channel_id"], row["unread"], row["recents"][0]["payload"]), ("crew", 0, "aGk="),
                  "what alice finds: a send that asks for no red dot")
            step("the README's lines for back ends")
            *done, route = server.types(block((repository / "docs/wukong.md").read_text(), "## 6. Moving", "key create"))
            check((len(done), route), (4, {"tcp_addr": TCP, "ws_addr": SOCKET, "wss_addr": ""}), "answers, and /route's")
            step("a key, tokens, a group and /route by the lines of docs/wukong.md")
            ann = await Js.open(node, server, "ann", "secret-of-ann", route=True)
            stack.push_async_callback(ann.close)
            await ann.connect()
            ben = Easy(server, "ben", "secret-of-ben", address=(await get("/route?uid=ben", "secret-of-ben"))["ws_addr"])
            stack.push_async_callback(ben.close)
            await ben.sdk.connect()
            cat = await Tcp.connected((await get("/route?uid=cat", "secret-of-cat"))["tcp_addr"], "cat", "secret-of-cat")
            stack.push_async_callback(cat.close)
            step("wukongimjssdk (its connectAddrCallback), wukong-easy-sdk and WKProto over TCP connect where /route says")
            await chat(server, ann, ben, cat)
            check(ann.faults + ben.errors, [], "errors of the SDKs")
            step("all of them chat in pairs and in a group; /conversation/sync says what each has and has not read")
        # As the newcomer ends it.
        server.process.send_signal(signal.SIGINT)
        check(await server.ended(), 0, "exit code behind Ctrl-C")
        step(f"Ctrl-C ends it; {time.monotonic() - begun:.1f} s")
        return 0
    except Failed as failed:
        print(f"FAIL  {failed}", flush=True)
        return 1
    finally:
        if server.process and server.process.returncode is None:
            server.process.kill()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*(Path(argument).resolve() for argument in sys.argv[1:5]))))
