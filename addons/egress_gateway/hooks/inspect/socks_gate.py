"""SOCKS5 (RFC 1928) on the inspect data path: CONNECT only; `succeeded` is said after the verdict, never before.

Where mitmproxy's option `proxyauth` is set, name and password (RFC 1929) are asked for, and mitmproxy's own hook says
whether they are right.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from mitmproxy.proxy import events, layer
from mitmproxy.proxy.commands import SendData
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.modes import Socks5AuthData, Socks5AuthHook

from egress_gateway.policy.destination import plain
from egress_gateway.policy.hostname import Host, MalformedHost, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import Treatment
from egress_gateway.relay.socks5 import (
    ADDRESS_TYPE_NOT_SUPPORTED,
    COMMAND_NOT_SUPPORTED,
    GENERAL_FAILURE,
    NOT_ALLOWED,
    REPLY_FOR,
    SUCCEEDED,
    reply,
)
from egress_gateway.relay.stream_relay import Destination, describe

from .byte_tunnel import ByteTunnel
from .client import InspectedClient
from .ending import Gate
from .opening import admit, open_way
from .stream_gate import StreamGate

_NO_AUTHENTICATION, _PASSWORD = 0, 2
_NO_ACCEPTABLE_METHOD = b"\x05\xff"
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4


class _Bad(ValueError):
    """The handshake cannot go on; `answer` is what to send before closing."""

    def __init__(self, text: str, answer: bytes = b"", reason: Reason = Reason.MALFORMED_REQUEST) -> None:
        super().__init__(text)
        self.answer = answer
        self.reason = reason


class SocksGate(Gate):
    def __init__(self, context: Context, client: InspectedClient, *, with_password: bool) -> None:
        super().__init__(context, client)
        self._with_password = with_password
        self._user = ""
        self._buffer = b""
        self._step: Callable[[], CommandGenerator[bool]] = self._greeting
        self._on = self._handshake

    def _handshake(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield from self._wake_in(self._client.gate.settings.limits.header_timeout)
        elif isinstance(event, events.Wakeup):
            yield from self._malformed(_Bad("the SOCKS5 handshake took too long", reason=Reason.CLIENT_TIMEOUT))
        elif isinstance(event, events.ConnectionClosed):
            yield from self._malformed(_Bad("the connection ended within the SOCKS5 handshake"))
        elif isinstance(event, events.DataReceived):
            self._buffer += event.data
            try:
                while self._on == self._handshake and (yield from self._step()):
                    pass
            except _Bad as bad:
                yield from self._malformed(bad)

    def _malformed(self, bad: _Bad) -> CommandGenerator[None]:
        exchange = self._client.begin()
        self._client.refuse(exchange, bad.reason, str(bad), "connect")
        yield from self._farewell(bad.answer)
        self._client.finish(exchange)

    def _take(self, count: int) -> bytes:
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    # --- each step returns whether it had all its bytes ---

    def _greeting(self) -> CommandGenerator[bool]:
        if self._buffer[:1] not in (b"", b"\x05"):
            raise _Bad("this port speaks SOCKS5 only")
        if len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
            return False
        methods = self._take(2 + self._buffer[1])[2:]
        method = _PASSWORD if self._with_password else _NO_AUTHENTICATION
        if method not in methods:
            wanted = "a user name and password" if self._with_password else "to go without authentication"
            raise _Bad(f"the client does not offer {wanted}", _NO_ACCEPTABLE_METHOD)
        yield SendData(self.context.client, bytes([5, method]))
        self._step = self._password if self._with_password else self._request
        return True

    def _password(self) -> CommandGenerator[bool]:
        buffer = self._buffer
        if len(buffer) < 2 or len(buffer) < 3 + buffer[1] or len(buffer) < 3 + buffer[1] + buffer[2 + buffer[1]]:
            return False
        if buffer[0] != 1:
            raise _Bad("a malformed SOCKS5 password message", b"\x01\x01")
        name = self._take(2 + buffer[1])[2:].decode("utf-8", "backslashreplace")
        password = self._take(1 + self._buffer[0])[1:].decode("utf-8", "backslashreplace")
        data = Socks5AuthData(self.context.client, name, password)
        yield Socks5AuthHook(data)
        if not data.valid:
            raise _Bad("user name or password is wrong", b"\x01\x01", Reason.PROXY_AUTHENTICATION_REQUIRED)
        self._user = name
        yield SendData(self.context.client, b"\x01\x00")
        self._step = self._request
        return True

    def _request(self) -> CommandGenerator[bool]:
        if len(self._buffer) < 5:
            return False
        version, command, reserved, kind = self._buffer[:4]
        if version != 5 or reserved != 0:
            raise _Bad("a malformed SOCKS5 request", reply(GENERAL_FAILURE))
        if command != _CONNECT:
            raise _Bad("only the SOCKS5 command CONNECT is supported", reply(COMMAND_NOT_SUPPORTED))
        sizes = {_IPV4: 4, _IPV6: 16, _NAME: 1 + self._buffer[4]}
        if kind not in sizes:
            raise _Bad("an unknown SOCKS5 address type", reply(ADDRESS_TYPE_NOT_SUPPORTED))
        if len(self._buffer) < 4 + sizes[kind] + 2:
            return False
        message = self._take(4 + sizes[kind] + 2)
        port = int.from_bytes(message[-2:])
        if port == 0:
            raise _Bad("port 0", reply(GENERAL_FAILURE))
        yield from self._judge(Destination(_host(kind, message[4:-2]), port))
        return True

    # --- the verdict ---

    def _judge(self, destination: Destination) -> CommandGenerator[None]:
        exchange = self._client.begin()
        exchange.protocol, exchange.user = "TCP", self._user
        describe(exchange, destination)
        request, verdict = admit(self._client, destination, exchange)
        if verdict.treatment is Treatment.AWAIT:
            self._client.forget(exchange)
            yield from self._succeed(StreamGate(self.context, self._client, destination))
        elif verdict.allowed and (yield from open_way(self.context, self._client, request, verdict, exchange, "tcp")):
            yield from self._succeed(ByteTunnel(self.context, self._client, exchange))
        else:
            if not verdict.allowed:
                exchange.hint = self._client.gate.explain(request, verdict).hint
            yield from self._farewell(reply(REPLY_FOR.get(exchange.reason, NOT_ALLOWED)))
            self._client.finish(exchange)

    def _succeed(self, tunnel: layer.Layer) -> CommandGenerator[None]:
        self._timer = None
        yield SendData(self.context.client, reply(SUCCEEDED))
        first, self._buffer = self._buffer, b""
        self._on = tunnel.handle_event
        yield from tunnel.handle_event(events.Start())
        if first:
            yield from tunnel.handle_event(events.DataReceived(self.context.client, first))


def _host(kind: int, raw: bytes) -> Host:
    if kind == _IPV4:
        return IPv4Address(raw)
    if kind == _IPV6:
        return plain(IPv6Address(raw))
    try:
        # Clients put literal addresses here as well, without the brackets of a URI.
        return parse_host(raw[1:].decode("utf-8"))
    except UnicodeDecodeError:
        raise _Bad("the host name is not UTF-8", reply(NOT_ALLOWED)) from None
    except MalformedHost as error:
        raise _Bad(f"the host name is malformed: {error}", reply(NOT_ALLOWED), Reason.MALFORMED_HOST) from error
