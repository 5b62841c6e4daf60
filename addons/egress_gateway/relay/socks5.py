"""SOCKS5 (RFC 1928): CONNECT only, without authentication. `succeeded` is said after the verdict, never before."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from egress_gateway.policy.destination import plain
from egress_gateway.policy.hostname import Host, MalformedHost, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Spoken
from egress_gateway.policy.verdict import Treatment

from .client import Client
from .stream_relay import Destination, Rest, describe, note_failure, relay_judged_later
from .tunnel import JudgedTunnel
from .upstream import Failed, connect
from .upstream_tls import TlsContexts

_VERSION = 5
_NO_AUTHENTICATION = 0
_NO_ACCEPTABLE_METHOD = b"\x05\xff"
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4

SUCCEEDED, GENERAL_FAILURE, NOT_ALLOWED, HOST_UNREACHABLE = 0, 1, 2, 4
COMMAND_NOT_SUPPORTED, ADDRESS_TYPE_NOT_SUPPORTED = 7, 8

REPLY_FOR = {
    Reason.NAME_NOT_RESOLVED: HOST_UNREACHABLE,
    Reason.CONNECT_FAILED: HOST_UNREACHABLE,
    Reason.CONNECT_TIMEOUT: HOST_UNREACHABLE,
    Reason.INTERNAL_ERROR: GENERAL_FAILURE,
    Reason.NOT_READY: GENERAL_FAILURE,
}


def reply(code: int) -> bytes:
    """A reply with the unspecified address as BND: it is of no use for CONNECT, and says nothing about our network."""
    return bytes([_VERSION, code, 0, _IPV4]) + bytes(6)


class BadSocks(ValueError):
    """The handshake cannot go on; `answer` is what to send before closing."""

    def __init__(self, text: str, answer: bytes = b"", reason: Reason = Reason.MALFORMED_REQUEST) -> None:
        super().__init__(text)
        self.answer = answer
        self.reason = reason


async def serve_socks5(client: Client, contexts: TlsContexts) -> Rest | None:
    """Serves one connection until it ends or becomes a tunnel."""
    gate = client.gate
    asked: tuple[Host, int] | Exception
    try:
        with client.deadline.within(gate.settings.limits.header_timeout):
            asked = await _handshake(client)
    except (TimeoutError, BadSocks) as error:
        asked = error
    if isinstance(asked, Exception):
        await _malformed(client, asked)
        return None
    destination = Destination(*asked)
    request = destination.request(Spoken.UNKNOWN)
    verdict = gate.decide(request, "connect")
    exchange = client.begin()
    describe(exchange, destination)
    exchange.protocol = "TCP"
    exchange.verdict = verdict
    if verdict.treatment is Treatment.AWAIT:
        barred = gate.judge_literal(request, verdict)
        if barred is None:
            client.writer.write(reply(SUCCEEDED))
            return await relay_judged_later(client, destination, contexts)
        exchange.detail = barred.detail
        exchange.verdict = verdict = gate.refused(barred.reason, "connect", verdict.rule)
    rest: Rest | None = None
    try:
        if verdict.allowed:
            opened = await connect(gate, contexts, request, verdict, exchange, "tcp")
            if not isinstance(opened, Failed):
                client.writer.write(reply(SUCCEEDED))
                rest = JudgedTunnel(client, opened, request, verdict, exchange).run
                return rest
            note_failure(exchange, opened)
        else:
            exchange.hint = gate.explain(request, verdict).hint
        client.writer.write(reply(REPLY_FOR.get(exchange.reason, NOT_ALLOWED)))
        await client.linger()
    finally:
        if rest is None:
            gate.finish(exchange)
    return None


async def _malformed(client: Client, error: Exception) -> None:
    timed_out = isinstance(error, TimeoutError)
    exchange = client.begin()
    exchange.detail = "the SOCKS5 handshake took too long" if timed_out else str(error)
    reason = error.reason if isinstance(error, BadSocks) else Reason.CLIENT_TIMEOUT
    exchange.verdict = client.gate.refused(reason, "connect")
    try:
        if isinstance(error, BadSocks) and error.answer:
            client.writer.write(error.answer)
            await client.linger()
    finally:
        client.gate.finish(exchange)


async def _handshake(client: Client) -> tuple[Host, int]:
    version, count = await _take(client, 2)
    if version != _VERSION:
        raise BadSocks("this port speaks SOCKS5 only")
    if _NO_AUTHENTICATION not in await _take(client, count):
        raise BadSocks("the client does not offer to go without authentication", _NO_ACCEPTABLE_METHOD)
    client.writer.write(bytes([_VERSION, _NO_AUTHENTICATION]))
    version, command, reserved, kind = await _take(client, 4)
    if version != _VERSION or reserved != 0:
        raise BadSocks("a malformed SOCKS5 request", reply(GENERAL_FAILURE))
    if command != _CONNECT:
        raise BadSocks("only the SOCKS5 command CONNECT is supported", reply(COMMAND_NOT_SUPPORTED))
    host = await _host(client, kind)
    port = int.from_bytes(await _take(client, 2))
    if port == 0:
        raise BadSocks("port 0", reply(GENERAL_FAILURE))
    return host, port


async def _host(client: Client, kind: int) -> Host:
    if kind == _IPV4:
        return IPv4Address(await _take(client, 4))
    if kind == _IPV6:
        return plain(IPv6Address(await _take(client, 16)))
    if kind != _NAME:
        raise BadSocks("an unknown SOCKS5 address type", reply(ADDRESS_TYPE_NOT_SUPPORTED))
    raw = await _take(client, (await _take(client, 1))[0])
    try:
        # Clients put literal addresses here as well, without the brackets of a URI.
        return parse_host(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadSocks("the host name is not UTF-8", reply(NOT_ALLOWED)) from None
    except MalformedHost as error:
        raise BadSocks(f"the host name is malformed: {error}", reply(NOT_ALLOWED), Reason.MALFORMED_HOST) from None


async def _take(client: Client, count: int) -> bytes:
    while len(client.input.buffer) < count:
        if not await client.input.fill():
            raise BadSocks("the connection ended within the SOCKS5 handshake")
    data = bytes(client.input.buffer[:count])
    del client.input.buffer[:count]
    return data
