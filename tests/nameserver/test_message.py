"""Bytes to a question, an answer to bytes."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.nameserver import message
from egress_gateway.nameserver.message import TCP_MOST, UDP_MOST, Question, Reply, Why, read, write

HEADER = struct.Struct("!HHHHHH")
QUERY = dns.message.make_query("a.example", "A", id=4711, use_edns=0, payload=4096).to_wire()
PLAIN = dns.message.make_query("a.example", "A", id=4711, use_edns=False).to_wire()
NAME = b"\1a\7example\0"
ASKED = NAME + b"\0\1\0\1"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def raw(flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0), rest: bytes = ASKED) -> bytes:
    return HEADER.pack(4711, flags, *counts) + rest


def question(data: bytes = QUERY) -> Question:
    found = read(data)
    assert isinstance(found, Question)
    return found


# --- questions ---


def test_a_question_is_read_in_the_clients_own_spelling() -> None:
    asked = question(raw(0x0110, rest=b"\1A\7eXamPle\0\0\x1c\0\1"))
    assert (asked.id, asked.name.to_text(), asked.rdtype, asked.payload) == (
        4711,
        "A.eXamPle.",
        dns.rdatatype.AAAA,
        None,
    )
    data, _ = write(asked, Reply(dns.rcode.NOERROR), udp=True)
    assert b"\1A\7eXamPle\0" in data
    assert HEADER.unpack_from(data)[1] == 0x8190, "RD and CD are repeated, RA is set, AA and AD are not"


def test_the_size_that_a_client_can_take_is_read() -> None:
    assert question().payload == 4096
    assert question(PLAIN).payload is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(11), id="less than a header"),
        pytest.param(raw(0x8000), id="a response"),
        pytest.param(raw(0xFFFF), id="a response of whatever kind"),
        pytest.param(raw(0xA800), id="a response to another operation"),
    ],
)
def test_what_is_no_question_is_not_answered(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        pytest.param(raw(0x0800), dns.rcode.NOTIMP, id="an inverse query"),
        pytest.param(raw(0x1000), dns.rcode.NOTIMP, id="a status query"),
        pytest.param(raw(0x2000), dns.rcode.NOTIMP, id="a notification"),
        pytest.param(raw(0x2800), dns.rcode.NOTIMP, id="an update"),
        pytest.param(raw(0x3000), dns.rcode.NOTIMP, id="a stateful operation"),
        pytest.param(raw(counts=(0, 0, 0, 0), rest=b""), dns.rcode.FORMERR, id="no question"),
        pytest.param(raw(counts=(2, 0, 0, 0), rest=2 * ASKED), dns.rcode.FORMERR, id="two questions"),
        pytest.param(raw(counts=(65535, 0, 0, 0)), dns.rcode.FORMERR, id="many questions"),
        pytest.param(raw(rest=b""), dns.rcode.FORMERR, id="a question that is missing"),
        pytest.param(raw(rest=ASKED[:-1]), dns.rcode.FORMERR, id="a question that is cut"),
        pytest.param(raw(rest=ASKED + b"x"), dns.rcode.FORMERR, id="bytes after it"),
        pytest.param(raw(rest=b"\xc0\x0c\0\1\0\1"), dns.rcode.FORMERR, id="a name that points to itself"),
        pytest.param(raw(rest=b"\x40a\0\0\1\0\1"), dns.rcode.FORMERR, id="a label of no known kind"),
        pytest.param(raw(rest=b"\x3f" + bytes(63) * 5 + b"\0\1\0\1"), dns.rcode.FORMERR, id="a name too long"),
        pytest.param(raw(counts=(1, 1, 0, 0), rest=ASKED + NAME + b"\0\1\0\1\0\0\0\1\0\4abcd"), dns.rcode.FORMERR,
                     id="an answer in a question"),
        pytest.param(raw(counts=(1, 0, 1, 0), rest=ASKED + NAME + b"\0\1\0\1\0\0\0\1\0\4abcd"), dns.rcode.FORMERR,
                     id="an authority in a question"),
        pytest.param(raw(counts=(1, 0, 0, 1), rest=ASKED + NAME + b"\0\1\0\1\0\0\0\1\0\4abcd"), dns.rcode.FORMERR,
                     id="anything else in it"),
        pytest.param(raw(counts=(1, 0, 0, 2), rest=ASKED + 2 * OPT), dns.rcode.FORMERR, id="EDNS twice"),
        pytest.param(raw(rest=NAME + b"\0\x29\0\1"), dns.rcode.FORMERR, id="a question for EDNS"),
        pytest.param(raw(counts=(1, 0, 0, 1), rest=ASKED + b"\0\0\xfa\0\xff\0\0\0\0\0\0"), dns.rcode.FORMERR,
                     id="a signature that cannot be read"),
        pytest.param(QUERY + bytes(5000), dns.rcode.FORMERR, id="more bytes than any question has"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_an_error_no_longer_than_itself(data: bytes, rcode: dns.rcode.Rcode) -> None:
    reply = read(data)
    assert isinstance(reply, bytes)
    assert len(reply) == HEADER.size <= len(data)
    number, flags, *counts = HEADER.unpack(reply)
    assert (number, flags & 0x8000, flags & 0x7800, flags & 15, counts) == (
        4711,
        0x8000,
        HEADER.unpack_from(data)[1] & 0x7800,
        rcode,
        [0, 0, 0, 0],
    )


def test_another_version_of_edns_is_told_which_one_there_is() -> None:
    reply = read(raw(counts=(1, 0, 0, 1), rest=ASKED + b"\0\0\x29\x04\xd0\0\1\0\0\0\0"))
    assert isinstance(reply, bytes)
    told = dns.message.from_wire(reply)
    assert (told.rcode(), told.edns) == (dns.rcode.BADVERS, 0)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_an_error_or_nothing(data: bytes) -> None:
    found = read(data)
    if isinstance(found, bytes):
        assert found[:2] == data[:2]
        assert found[2] & 0x80


@given(st.lists(st.tuples(st.integers(2, len(QUERY) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(QUERY)))
def test_a_question_with_some_bytes_changed_too(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(QUERY)
    for position, value in changes:
        data[position] = value
    found = read(bytes(data[:cut]))
    if isinstance(found, Question):
        for udp in (True, False):
            written, _ = write(found, Reply(dns.rcode.REFUSED), udp=udp)
            assert dns.message.from_wire(written).question[0].name == found.name


# --- answers ---


def records(count: int) -> tuple[dns.rrset.RRset, ...]:
    addresses = [ip_address(f"2001:db8::{number:x}") for number in range(1, count + 1)]
    return message.addresses(question(), (), addresses, 60)


def test_addresses_stand_under_the_last_alias() -> None:
    asked = question()
    answer = message.addresses(asked, ("b.example", "c.example"), [ip_address("192.0.2.1")], 30)
    data, whole = write(asked, Reply(dns.rcode.NOERROR, answer), udp=True)
    assert whole
    assert [line for rrset in dns.message.from_wire(data).answer for line in rrset.to_text().splitlines()] == [
        "a.example. 30 IN CNAME b.example.",
        "b.example. 30 IN CNAME c.example.",
        "c.example. 30 IN A 192.0.2.1",
    ]


def test_addresses_keep_their_order() -> None:
    addresses = [ip_address(f"192.0.2.{number}") for number in (9, 3, 7, 1)]
    asked = question()
    data, _ = write(asked, Reply(dns.rcode.NOERROR, message.addresses(asked, (), addresses, 1)), udp=True)
    assert [record.address for record in dns.message.from_wire(data).answer[0]] == [str(one) for one in addresses]


@pytest.mark.parametrize(
    ("payload", "count", "whole"),
    [
        pytest.param(None, 16, True, id="16 addresses fit into the 512 bytes of old"),
        pytest.param(None, 18, False, id="18 do not"),
        pytest.param(100, 16, True, id="a size below 512 is taken for 512"),
        pytest.param(1232, 40, True, id="40 fit into 1232 bytes"),
        pytest.param(1232, 64, False, id="64 do not"),
        pytest.param(65535, 64, False, id="whatever the client says it can take"),
    ],
)
def test_over_udp_what_does_not_fit_is_left_out_as_a_whole(payload: int | None, count: int, whole: bool) -> None:
    edns = {"use_edns": False} if payload is None else {"use_edns": 0, "payload": payload}
    asked = question(dns.message.make_query("a.example", "AAAA", **edns).to_wire())
    data, complete = write(asked, Reply(dns.rcode.NOERROR, records(count)), udp=True)
    assert complete is whole
    assert len(data) <= min(max(payload or 0, 512), UDP_MOST)
    told = dns.message.from_wire(data, raise_on_truncation=False)
    assert bool(told.flags & dns.flags.TC) is not whole
    assert sum(len(rrset) for rrset in told.answer) == (count if whole else 0)
    over_tcp, complete = write(asked, Reply(dns.rcode.NOERROR, records(count)), udp=False)
    assert complete
    assert len(over_tcp) <= TCP_MOST
    assert sum(len(rrset) for rrset in dns.message.from_wire(over_tcp).answer) == count


def test_a_refusal_says_why_to_those_who_speak_edns() -> None:
    reply = Reply(dns.rcode.REFUSED, why=Why(dns.edns.EDECode.BLOCKED, "no_rule"))
    told = dns.message.from_wire(write(question(), reply, udp=True)[0])
    assert [(option.code, option.text) for option in told.options] == [(dns.edns.EDECode.BLOCKED, "no_rule")]
    assert told.payload == UDP_MOST
    old = dns.message.from_wire(write(question(PLAIN), reply, udp=True)[0])
    assert (old.rcode(), old.edns) == (dns.rcode.REFUSED, -1)


def test_who_asks_for_everything_gets_one_small_record() -> None:
    asked = question()
    data, _ = write(asked, Reply(dns.rcode.NOERROR, message.refused_any(asked, 300)), udp=True)
    assert [rrset.to_text() for rrset in dns.message.from_wire(data).answer] == ['a.example. 300 IN HINFO "RFC8482" ""']
    assert len(data) <= len(QUERY) + 21
