"""A WKProto client over TCP, version 5, written from WuKongIM's public description and made of nothing that the server is.

Packets and keys: tests/vectors/wukong/wkproto-vectors.json has what other people's clients made of both.
"""

import asyncio
import base64
import hashlib
import itertools
import json
import struct
import time
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from world import SUCCESS, Failed, Js, Told, check

VERSION = 5
APP = 0
CONNECT, CONNACK, SEND, SENDACK, RECV, RECVACK, PING, PONG, DISCONNECT = range(1, 10)
RED_DOT = 2


def text(value):
    """A string as packets carry it."""
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind, body, flags=0):
    """A whole packet."""
    length, left = b"", len(body)
    while left:
        left, group = left >> 7, left & 0x7F
        length += bytes([group | (0x80 if left else 0)])
    return bytes([kind << 4 | flags]) + length + body


class Body:
    """Reads a packet's fields one after the other."""

    def __init__(self, data):
        self._data, self._at = data, 0

    def number(self, form):
        """One number of `struct`'s form, big endian."""
        value, = struct.unpack_from(">" + form, self._data, self._at)
        self._at += struct.calcsize(">" + form)
        return value

    def text(self):
        """One string."""
        length = self.number("H")
        self._at += length
        return self._data[self._at - length:self._at].decode()

    def rest(self):
        """Everything that is left."""
        return self._data[self._at:]


class Keys:
    """What both ends agreed on for a session."""

    def __init__(self, private, server_key, salt):
        secret = private.exchange(X25519PublicKey.from_public_bytes(base64.b64decode(server_key)))
        key = hashlib.md5(base64.b64encode(secret)).hexdigest()[:16].encode()
        self._cipher = Cipher(algorithms.AES(key), modes.CBC(salt.encode()[:16]))

    def seal(self, data):
        """Encrypts."""
        padder, encryptor = PKCS7(128).padder(), self._cipher.encryptor()
        return base64.b64encode(encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize())

    def open(self, data):
        """Decrypts."""
        unpadder, decryptor = PKCS7(128).unpadder(), self._cipher.decryptor()
        return unpadder.update(decryptor.update(base64.b64decode(data)) + decryptor.finalize()) + unpadder.finalize()

    def sign(self, *fields):
        """The msgKey over fields in their order."""
        joined = b"".join(field if isinstance(field, bytes) else str(field).encode() for field in fields)
        return hashlib.md5(self.seal(joined)).hexdigest()


class Tcp(Told):
    """A user with a WKProto client over TCP."""

    @classmethod
    async def connected(cls, address, uid, token, flag=APP):
        """Connects to `host:port`."""
        tcp = cls()
        tcp.uid, tcp.live, tcp.acks, tcp.pongs, tcp.ended = uid, [], {}, 0, None
        tcp._numbers = itertools.count(1)
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        tcp._reader, tcp._writer = await asyncio.open_connection(host, int(port))
        private = X25519PrivateKey.generate()
        public = base64.b64encode(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
        connect = packet(CONNECT, struct.pack(">BB", VERSION, flag) + text(f"device of {uid}") + text(uid) + text(token)
                         + struct.pack(">q", int(time.time() * 1000)) + text(public))
        # Cut in two: a stream has no borders.
        tcp._writer.write(connect[:40])
        await tcp._writer.drain()
        tcp._writer.write(connect[40:])
        kind, flags, body = await tcp._packet()
        check((kind, flags), (CONNACK, 1), "the first packet, and that it says its version")
        version, _, reason = body.number("B"), body.number("q"), body.number("B")
        check((version, reason), (VERSION, SUCCESS), "version and reason of CONNACK")
        tcp._keys = Keys(private, body.text(), body.text())
        tcp._task = asyncio.create_task(tcp._read())
        return tcp

    async def _packet(self):
        head, = await self._reader.readexactly(1)
        kind, length, shift = head >> 4, 0, 0
        while kind not in (PING, PONG):
            byte, = await self._reader.readexactly(1)
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return kind, head & 0xF, Body(await self._reader.readexactly(length))

    async def _read(self):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, flags, body = await self._packet()
                if kind == SENDACK:
                    message_id, number = body.number("q"), body.number("I")
                    self.acks[number] = {"id": str(message_id), "seq": body.number("I"), "reason": body.number("B")}
                elif kind == RECV:
                    self._received(flags, body)
                elif kind == PONG:
                    self.pongs += 1
                else:
                    raise Failed(f"{self.uid}: packet {kind} {body.rest()}")
                self.change()

    def _received(self, flags, body):
        setting, key, sender, channel, kind = body.number("B"), body.text(), body.text(), body.text(), body.number("B")
        expire, number, message_id = body.number("I"), body.text(), body.number("q")
        seq, timestamp = body.number("I"), body.number("i")
        payload = body.rest()
        check((setting, expire), (0, 0), "setting and expire of a RECV")
        check(key, self._keys.sign(message_id, seq, number, timestamp, sender, channel, kind, payload), "msgKey of a RECV")
        self.live.append({
            "seq": seq, "id": str(message_id), "no": number, "from": sender, "channel": channel, "type": kind,
            "text": json.loads(self._keys.open(payload))["content"], "red": bool(flags & RED_DOT), "timestamp": timestamp,
        })
        self._writer.write(packet(RECVACK, struct.pack(">qI", message_id, seq), flags & 7))

    async def say(self, channel, kind, *texts):
        """Sends texts in one write, and returns their acks in the same order."""
        sent, wire = [], b""
        for said in texts:
            number = next(self._numbers)
            name, payload = f"{self.uid}-{number}", self._keys.seal(json.dumps({"type": 1, "content": said}).encode())
            key = self._keys.sign(number, name, channel, kind, payload)
            wire += packet(SEND, struct.pack(">BI", 0, number) + text(name) + text(channel) + struct.pack(">BI", kind, 0)
                           + text(key) + payload, RED_DOT)
            sent.append(number)
        self._writer.write(wire)
        await self.until(f"{len(sent)} SENDs answered", lambda: all(number in self.acks for number in sent))
        return [self.acks[number] for number in sent]

    async def ping(self):
        """Asks, and waits for the answer."""
        before = self.pongs
        self._writer.write(packet(PING, b""))
        await self.until("a PONG", lambda: self.pongs > before)

    heard = Js.heard

    def seen(self):
        """For a wait in vain."""
        return f"{self.uid} (TCP): {len(self.live)} messages, {len(self.acks)} acks, reading ended: {self._task.done()}"

    async def close(self):
        """Ends it; what was wrong with a packet is raised now."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        await self._task
