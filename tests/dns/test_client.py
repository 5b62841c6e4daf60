"""One question to one server: whose answer is believed, and what every other thing it may do becomes."""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egress_gateway.dns import client
from egress_gateway.dns.answer import ResolveError, ResolveFailure

A = dns.rdatatype.A
NAME = dns.name.from_text("a.example")

type Reply = Callable[..., dns.message.Message]


async def ask(server, within: float = 2.0) -> list[str]:
    message = await client.ask(server.endpoint, NAME, A, within=within)
    return [record.address for rrset in message.answer for record in rrset]


async def refusal(server, within: float = 2.0) -> ResolveError:
    with pytest.raises(ResolveError) as caught:
        await ask(server, within)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_an_answer_is_given_out(server) -> None:
    server.say("a.example", "A", "60 A 192.0.2.1")
    assert await ask(server) == ["192.0.2.1"]
    assert server.queries == [("a.example", "A", "udp")]


async def test_a_server_is_reached_over_ipv6(server) -> None:
    await server.close()
    await server.start("::1")
    server.say("a.example", "A", "60 A 192.0.2.1")
    assert await ask(server) == ["192.0.2.1"]


async def test_no_two_questions_share_id_or_port(server) -> None:
    server.say("a.example", "A", "60 A 192.0.2.1")
    await asyncio.gather(*(ask(server) for _ in range(50)))
    assert len(set(server.ids)) > 45
    assert len(set(server.ports)) > 45


def _wrong_id(wire: bytes) -> bytes:
    return bytes([wire[0] ^ 1]) + wire[1:]


def _wrong_name(wire: bytes) -> bytes:
    return wire.replace(b"\x01a\x07example", b"\x01b\x07example")


def _wrong_type(wire: bytes) -> bytes:
    return wire.replace(b"\x07example\0\0\x01", b"\x07example\0\0\x1c", 1)


def _wrong_class(wire: bytes) -> bytes:
    return wire.replace(b"\x07example\0\0\x01\0\x01", b"\x07example\0\0\x01\0\x03", 1)


def _not_an_answer(wire: bytes) -> bytes:
    return wire[:2] + bytes([wire[2] & 0x7F]) + wire[3:]


def _another_opcode(wire: bytes) -> bytes:
    return wire[:2] + bytes([wire[2] | 0x20]) + wire[3:]


def _no_question(wire: bytes) -> bytes:
    end = 12 + len(NAME.to_wire() or b"") + 4
    return wire[:4] + b"\0\0" + wire[6:12] + wire[end:].replace(b"\xc0\x0c", b"\x01a\x07example\0")


def _two_questions(wire: bytes) -> bytes:
    return wire[:4] + b"\0\2" + wire[6:]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_wrong_id, id="another id"),
        pytest.param(_wrong_name, id="another name in the question"),
        pytest.param(_wrong_type, id="another type in the question"),
        pytest.param(_wrong_class, id="another class in the question"),
        pytest.param(_not_an_answer, id="a question instead of an answer"),
        pytest.param(_another_opcode, id="another opcode"),
        pytest.param(_no_question, id="an answer without the question"),
        pytest.param(_two_questions, id="two questions"),
        pytest.param(lambda wire: wire[:11], id="less than a header"),
        pytest.param(lambda wire: b"", id="nothing at all"),
    ],
)
async def test_a_datagram_that_does_not_answer_is_ignored_and_the_true_answer_is_awaited(
    server, reply: Reply, spoil: Callable[[bytes], bytes]
) -> None:
    def lie_first(query: dns.message.Message, _: str) -> list[bytes]:
        lie = spoil(reply(query, "60 A 192.0.2.66").to_wire())
        assert lie != reply(query, "60 A 192.0.2.66").to_wire()
        return [lie, lie, reply(query, "60 A 192.0.2.1").to_wire()]

    server.script("a.example", "A", lie_first)
    assert await ask(server) == ["192.0.2.1"]


async def test_an_answer_from_another_address_or_port_is_never_seen(server, reply: Reply) -> None:
    """The liar knows id, question and port, and is still not the server."""
    liars = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    liars[0].bind(("127.0.0.1", 0))
    liars[1].bind(("127.0.0.2", server.endpoint[1]))

    def others_answer(query: dns.message.Message, _: str) -> list[bytes]:
        for liar in liars:
            liar.sendto(reply(query, "60 A 192.0.2.66").to_wire(), ("127.0.0.1", server.ports[-1]))
        return [reply(query, "60 A 192.0.2.1").to_wire()]

    server.script("a.example", "A", others_answer)
    server.delay("a.example", "A", 0.1)
    try:
        assert await ask(server) == ["192.0.2.1"]
    finally:
        for liar in liars:
            liar.close()


async def test_the_question_may_come_back_in_other_case(server, reply: Reply) -> None:
    server.script(
        "a.example",
        "A",
        lambda query, _: [reply(query, "60 A 192.0.2.1").to_wire().replace(b"example", b"EXAMPLE")],
    )
    assert await ask(server) == ["192.0.2.1"]


def cut_over_udp(reply: Reply, over_tcp: Callable[[bytes], list[bytes]]) -> Callable:
    def script(query: dns.message.Message, transport: str) -> list[bytes]:
        if transport == "udp":
            response = reply(query, "60 A 192.0.2.66")
            response.flags |= dns.flags.TC
            return [response.to_wire()]
        return over_tcp(reply(query, "60 A 192.0.2.1").to_wire())

    return script


async def test_an_answer_that_was_cut_is_asked_for_again_over_tcp(server, reply: Reply) -> None:
    server.script("a.example", "A", cut_over_udp(reply, lambda wire: [wire]))
    assert await ask(server) == ["192.0.2.1"]
    assert [transport for _, _, transport in server.queries] == ["udp", "tcp"]


@pytest.mark.parametrize(
    ("over_tcp", "complaint"),
    [
        pytest.param(lambda wire: [], "ended within", id="the connection ends without an answer"),
        pytest.param(lambda wire: [_wrong_id(wire)], "another question", id="another id"),
        pytest.param(lambda wire: [_wrong_name(wire)], "another question", id="another name"),
        pytest.param(lambda wire: [b""], "another question", id="an empty message"),
        pytest.param(lambda wire: [wire + bytes(20_000)], "more than 4096 bytes", id="too large"),
        pytest.param(lambda wire: [wire[:-2]], "cannot be read", id="cut within a record"),
    ],
)
async def test_what_a_server_may_do_wrong_over_tcp_is_malformed(
    server, reply: Reply, over_tcp: Callable[[bytes], list[bytes]], complaint: str
) -> None:
    server.script("a.example", "A", cut_over_udp(reply, over_tcp))
    error = await refusal(server)
    assert error.kind is ResolveFailure.MALFORMED
    assert complaint in str(error)


async def test_a_server_that_stalls_over_tcp_costs_no_more_than_the_time_given(server, reply: Reply) -> None:
    server.script("a.example", "A", cut_over_udp(reply, lambda wire: [wire]))
    server.delay("a.example", "A", 0.2)  # once over UDP, once over TCP
    started = asyncio.get_running_loop().time()
    assert (await refusal(server, within=0.3)).kind is ResolveFailure.TIMEOUT
    assert asyncio.get_running_loop().time() - started < 0.6


@pytest.mark.parametrize(
    ("rcode", "kind"),
    [
        ("SERVFAIL", ResolveFailure.SERVFAIL),
        ("REFUSED", ResolveFailure.REFUSED),
        ("NOTAUTH", ResolveFailure.SERVFAIL),
        ("FORMERR", ResolveFailure.SERVFAIL),
        ("BADVERS", ResolveFailure.SERVFAIL),
    ],
)
async def test_a_code_that_is_no_answer_is_a_failure_that_names_it(server, rcode: str, kind: ResolveFailure) -> None:
    server.say("a.example", "A", rcode=rcode)
    error = await refusal(server)
    assert error.kind is kind
    assert rcode in str(error)
    assert f"127.0.0.1 port {server.endpoint[1]}" in str(error)


async def test_an_error_without_the_question_is_believed(server) -> None:
    server.script("a.example", "A", lambda query, _: [struct.pack("!HHHHHH", query.id, 0x8005, 0, 0, 0, 0)])
    assert (await refusal(server)).kind is ResolveFailure.REFUSED


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP", "BADVERS"])
async def test_a_server_that_knows_no_edns_is_asked_without(server, reply: Reply, rcode: str) -> None:
    server.script(
        "a.example",
        "A",
        lambda query, _: [(reply(query, rcode=rcode) if query.edns >= 0 else reply(query, "60 A 192.0.2.1")).to_wire()],
    )
    assert await ask(server) == ["192.0.2.1"]
    assert server.count() == 2


async def test_the_question_announces_a_size_that_no_path_fragments(server, reply: Reply) -> None:
    payloads = []
    server.script("a.example", "A", lambda query, _: payloads.append(query.payload) or [reply(query).to_wire()])
    await ask(server)
    assert payloads == [1232]


async def test_silence_is_a_timeout_after_the_time_given(server) -> None:
    server.silent("a.example")
    started = asyncio.get_running_loop().time()
    error = await refusal(server, within=0.2)
    assert error.kind is ResolveFailure.TIMEOUT
    assert "no answer in 0.2 s" in str(error)
    assert 0.19 < asyncio.get_running_loop().time() - started < 0.6


async def test_a_flood_of_wrong_answers_is_a_timeout_too(server, reply: Reply) -> None:
    server.script("a.example", "A", lambda query, _: [_wrong_id(reply(query).to_wire())] * 500)
    assert (await refusal(server, within=0.3)).kind is ResolveFailure.TIMEOUT


async def test_a_flood_that_never_pauses_does_not_stop_the_clock(server, monkeypatch: pytest.MonkeyPatch) -> None:
    received = 0

    async def always_ready(*_: object) -> bytes:
        nonlocal received
        received += 1
        assert received < 1_000_000
        return b"not what was asked for"

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_recv", always_ready)
    assert (await refusal(server, within=0.1)).kind is ResolveFailure.TIMEOUT


async def test_nobody_listening_is_told_at_once(server) -> None:
    closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    closed.bind(("127.0.0.1", 0))
    server.endpoint = closed.getsockname()
    closed.close()
    started = asyncio.get_running_loop().time()
    error = await refusal(server)
    assert error.kind is ResolveFailure.REFUSED
    assert "nobody listens there" in str(error)
    assert asyncio.get_running_loop().time() - started < 1.0


async def test_an_answer_too_large_for_anyone_is_malformed(server, reply: Reply) -> None:
    server.script("a.example", "A", lambda query, _: [reply(query, "60 A 192.0.2.1").to_wire() + bytes(20_000)])
    error = await refusal(server)
    assert error.kind is ResolveFailure.MALFORMED
    assert "more than 4096 bytes" in str(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EMFILE, ResolveFailure.OVERLOADED),
        (errno.ENOBUFS, ResolveFailure.OVERLOADED),
        (errno.ENETUNREACH, ResolveFailure.SERVFAIL),
    ],
)
async def test_what_the_system_refuses_is_told(
    server, monkeypatch: pytest.MonkeyPatch, code: int, kind: ResolveFailure
) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(client.socket, "socket", fail)
    error = await refusal(server)
    assert error.kind is kind
    assert os.strerror(code) in str(error)


async def test_giving_up_leaves_no_socket_open(server) -> None:
    server.silent("a.example")
    tasks = [asyncio.create_task(ask(server)) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert server.sockets_to_it() == 10
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0.01)
    assert server.sockets_to_it() == 0


@given(
    garbage=st.binary(max_size=80),
    flips=st.lists(st.tuples(st.integers(2, 90), st.integers(1, 255)), max_size=4),
    use_flips=st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_are_an_answer_or_a_resolve_error(
    server, reply: Reply, garbage: bytes, flips: list[tuple[int, int]], use_flips: bool
) -> None:
    """Random bytes behind a true header, or a true answer with some bytes changed."""

    def babble(query: dns.message.Message, _: str) -> list[bytes]:
        wire = bytearray(reply(query, "a.example. 60 CNAME b.example.", "b.example. 60 A 192.0.2.1").to_wire())
        if not use_flips:
            question = 12 + len(NAME.to_wire() or b"") + 4
            return [bytes(wire[:question]) + garbage]
        for position, change in flips:
            if position < len(wire):
                wire[position] ^= change
        return [bytes(wire)]

    server.script("a.example", "A", babble)
    try:
        message = await client.ask(server.endpoint, NAME, A, within=0.03)
    except ResolveError as error:
        outcome: object = error.kind
    else:
        outcome = message
    assert isinstance(outcome, ResolveFailure | dns.message.Message)
