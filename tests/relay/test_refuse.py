"""A refusal in the language that the client speaks."""

from __future__ import annotations

import asyncio

import pytest

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Settings
from egress_gateway.policy.reason import ANSWERS, Reason
from egress_gateway.policy.verdict import refuse
from egress_gateway.relay.client import Client
from egress_gateway.relay.refuse import refuse_http, refuse_tls
from egress_gateway.relay.stream import Input
from support.relay_server import Names, Recorder


class Written:
    """A writer that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def write(self, data: bytes) -> None:
        self.data += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None: ...
    def is_closing(self) -> bool:
        return False

    async def drain(self) -> None: ...
    async def wait_closed(self) -> None: ...


def client() -> tuple[Client, Written]:
    reader, writer = asyncio.StreamReader(), Written()
    reader.feed_eof()
    gate = Gatekeeper(Names({}), Recorder(), Settings())
    return Client(gate, Input(reader), writer, ("192.0.2.1", 1)), writer


UNRECOGNIZED_NAME = {Reason.SNI_MISMATCH, Reason.SNI_MALFORMED, Reason.SNI_MISSING}
INTERNAL_ERROR = {
    Reason.NAME_NOT_RESOLVED,
    Reason.CONNECT_FAILED,
    Reason.CONNECT_TIMEOUT,
    Reason.INTERNAL_ERROR,
    Reason.NOT_READY,
}


@pytest.mark.parametrize("reason", Reason)
async def test_an_alert_for_every_reason(reason: Reason) -> None:
    made, writer = client()
    exchange = made.begin()
    exchange.verdict = refuse(reason)
    await refuse_tls(made, exchange)
    # RFC 8446, 6: alert, version 3.1, length 2, fatal, and access_denied, unrecognized_name or internal_error.
    number = 112 if reason in UNRECOGNIZED_NAME else 80 if reason in INTERNAL_ERROR else 49
    assert writer.data == bytes([21, 3, 1, 0, 2, 2, number])
    assert writer.ended


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_response_for_every_reason(reason: Reason, keep_alive: bool) -> None:
    made, writer = client()
    exchange = made.begin()
    exchange.verdict = refuse(reason)
    await refuse_http(made, exchange, keep_alive=keep_alive)
    head, _, body = writer.data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    status = ANSWERS[reason].status
    assert lines[0].startswith(f"HTTP/1.1 {status} ")
    assert f"x-egress-reason: {reason}" in lines
    assert f"content-length: {len(body)}" in lines
    assert ("connection: keep-alive" in lines) is keep_alive
    assert ("connection: close" in lines) is not keep_alive
    assert writer.ended is not keep_alive
    assert exchange.response_code == status


async def test_a_refused_tunnel_says_why_in_its_first_line() -> None:
    made, writer = client()
    exchange = made.begin()
    exchange.method, exchange.verdict = "CONNECT", refuse(Reason.NO_RULE)
    await refuse_http(made, exchange)
    assert writer.data.startswith(b"HTTP/1.1 403 no_rule: no egress rule allows this host\r\n")


async def test_a_refusal_to_head_has_the_length_of_the_body_it_has_not() -> None:
    made, writer = client()
    await refuse_http(made, made.begin(), head_only=True)
    head, _, body = writer.data.partition(b"\r\n\r\n")
    assert body == b""
    assert b"content-length: 0" not in head


@pytest.mark.parametrize("text", ["a\r\nX-Injected: 1", "a\nb", "\x1b[31m", "\0", "ü", '"quoted"\\'])
async def test_what_a_client_said_splits_no_header(text: str) -> None:
    made, writer = client()
    exchange = made.begin()
    exchange.method, exchange.path, exchange.authority, exchange.detail = text, text, text, text
    exchange.verdict = refuse(Reason.MALFORMED_REQUEST)
    await refuse_http(made, exchange)
    head, _, body = writer.data.partition(b"\r\n\r\n")
    assert not [line for line in head.split(b"\r\n") if line.lower().startswith(b"x-injected")]
    assert all(0x20 <= byte < 0x7F for byte in head.replace(b"\r\n", b""))
    assert b"\x1b" not in body
    assert b"\0" not in body
