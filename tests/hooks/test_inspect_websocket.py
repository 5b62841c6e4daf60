"""WebSockets pass where HTTP does, and what follows the handshake is no longer HTTP."""

import contextlib
import os
from collections.abc import Callable

import pytest
import wsproto
import wsproto.events
from wsproto.events import AcceptConnection, CloseConnection, Message, Request, TextMessage

from support.gateway import Gateway
from support.lab import log_from_now
from support.origin import Origins
from support.waiting import eventually
from support.wire import Wire

pytestmark = pytest.mark.private_network

WEB, SECOND = "203.0.113.10", "203.0.113.30"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    b"GET http://www.example.com/ws HTTP/1.1\r\nHost: www.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)


def test_messages_pass_both_ways(inspect: Gateway, origin: Origins) -> None:
    server = origin.http(WEB)
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    told = log_from_now(inspect)
    with inspect.connect(30) as sock:  # each message is an event for every addon
        request = client.send(Request(host="www.example.com", target="/ws"))
        sock.sendall(request.replace(b"GET /ws", b"GET http://www.example.com/ws"))
        texts: list[str] = []
        while len(texts) < 1500:
            client.receive_data(sock.recv(65536))
            for event in client.events():
                if isinstance(event, AcceptConnection):
                    sock.sendall(b"".join(client.send(TextMessage(f"message {n}")) for n in range(1500)))
                elif isinstance(event, Message):
                    texts.append(str(event.data))
        assert texts == [f"message {number}" for number in range(1500)]
        sock.sendall(client.send(CloseConnection(1000)))
    (entry,) = eventually(told, "a line in the access log")
    assert (entry["path"], entry["response_code"]) == ("/ws", 101)
    assert entry["bytes_received"] > 1500 * 9
    assert len(server.requests[0].frames) == 1500


def test_frames_sent_with_the_handshake_are_not_read_as_http(inspect: Gateway, origin: Origins, wire: Wire) -> None:
    origin.http(WEB)
    smuggled = b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    reply = inspect.raw(HANDSHAKE + smuggled)
    assert reply.count(b"HTTP/1.1 ") == 1
    wire.assert_nothing_left(SECOND, name="evil.example")


def test_a_wrong_accept_key(inspect: Gateway, origin: Origins) -> None:
    origin.scripted(
        WEB,
        80,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + os.urandom(9).hex().encode() + b"\r\n\r\nraw bytes",
        stays_open=True,
    )
    reply = inspect.raw(HANDSHAKE)
    assert reply.startswith(b"HTTP/1.1 502"), reply
    assert b"raw bytes" not in reply


def test_a_websocket_ends_when_the_rules_change(
    gateway: Callable[..., Gateway], names: object, rules: str, origin: Origins
) -> None:
    origin.http(WEB)
    with gateway({"rules.yaml": rules}, data_path="inspect") as gw, gw.connect() as sock:
        sock.sendall(HANDSHAKE)
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")
        gw.delete_rule("rules.yaml")
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):
                pass
        entry = gw.wait_for_log(path="/ws")
        assert entry["verdict"] == "deny"
