"""Questions that a real library reads, and answers that one wrote."""

from __future__ import annotations

import dns.edns
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.containment.spoken import dns as spoken
from egress_gateway.containment.spoken.reading import Meaning, Reading

NAME = "denied.gateway-check.invalid"


def answer(code: str = "NOERROR", records: int = 0, extended: int | None = None) -> bytes:
    query = dns.message.from_wire(spoken.question(NAME))
    response = dns.message.make_response(query)
    if records:
        addresses = [f"192.0.2.{number}" for number in range(1, records + 1)]
        response.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", *addresses))
    # One that is not looked at comes first.
    options: list[dns.edns.Option] = [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, bytes(8))]
    if extended is not None:
        options.append(dns.edns.EDEOption(dns.edns.EDECode(extended), "because"))
    response.use_edns(0, options=options)
    response.set_rcode(dns.rcode.from_text(code))
    return response.to_wire()


def test_a_question_is_one_that_a_resolver_reads() -> None:
    query = dns.message.from_wire(spoken.question(f"{NAME}.", spoken.AAAA))
    (asked,) = query.question
    assert asked.name == dns.name.from_text(NAME)
    assert asked.rdtype == dns.rdatatype.AAAA
    assert query.edns == 0
    assert query.payload == 1232
    assert query.flags == 0x0100


MEANINGS = {
    "REFUSED": (answer("REFUSED"), Reading(Meaning.REFUSAL, "REFUSED")),
    "NXDOMAIN": (answer("NXDOMAIN"), Reading(Meaning.OTHER, "NXDOMAIN, as any resolver says")),
    "NXDOMAIN as blocked": (answer("NXDOMAIN", extended=15), Reading(Meaning.SIGNED, "NXDOMAIN (Blocked)")),
    "REFUSED as blocked": (answer("REFUSED", extended=15), Reading(Meaning.SIGNED, "REFUSED (Blocked)")),
    "REFUSED as prohibited": (answer("REFUSED", extended=18), Reading(Meaning.SIGNED, "REFUSED (Prohibited)")),
    "REFUSED for another reason": (answer("REFUSED", extended=20), Reading(Meaning.REFUSAL, "REFUSED")),
    "addresses": (answer(records=2), Reading(Meaning.OTHER, "NOERROR with 2 records")),
    "no address": (answer(), Reading(Meaning.OTHER, "NOERROR with 0 records")),
    "SERVFAIL": (answer("SERVFAIL"), Reading(Meaning.FAILURE, "SERVFAIL")),
    "a code with its upper bits in EDNS": (answer("BADVERS"), Reading(Meaning.FAILURE, "code 16")),
    "a question": (spoken.question(NAME), Reading(Meaning.OTHER, "not DNS (not a response)")),
    "no DNS": (b"HTTP/1.1 400 Bad Request\r\n", Reading(Meaning.OTHER, "not DNS (not a response)")),
    "nothing": (b"", Reading(Meaning.OTHER, "not DNS (ends too early)")),
}


@pytest.mark.parametrize("case", MEANINGS)
def test_what_an_answer_means(case: str) -> None:
    data, reading = MEANINGS[case]
    assert spoken.read(data) == reading


def test_an_answer_cut_short_is_malformed_wherever_it_ends() -> None:
    whole = answer("REFUSED", 2, 15)
    for length in range(len(whole)):
        with pytest.raises(spoken.Malformed):
            spoken.parse(whole[:length])


@given(st.binary(max_size=80))
def test_any_bytes_are_read(tail: bytes) -> None:
    for head in (b"", b"\x00\x00\x81\x80\x00\x01\x00\x01\x00\x00\x00\x01"):
        assert isinstance(spoken.read(head + tail), Reading)


def test_an_answer_belongs_to_its_question() -> None:
    query = spoken.question(NAME)
    other = bytes([query[0] ^ 1]) + query[1:]
    response = dns.message.make_response(dns.message.from_wire(query)).to_wire()
    assert spoken.is_answer_to(query, response)
    assert not spoken.is_answer_to(other, response)
    assert not spoken.is_answer_to(query, query)
    assert not spoken.is_answer_to(query, response[:5])


def test_over_tcp_a_length_stands_before() -> None:
    message = spoken.over_tcp(b"abc")
    assert message == b"\x00\x03abc"
    assert spoken.complete_over_tcp(message)
    assert not spoken.complete_over_tcp(message[:-1])
    assert not spoken.complete_over_tcp(b"\x00")
