"""Bytes of a client to a question, and an answer to bytes: RFC 1035, RFC 6891 (EDNS), RFC 8914 (why). Pure.

- What is no question is not answered at all, so that two servers cannot talk to each other for ever.
- A question that cannot be read, or is more than one (RFC 9619), is FORMERR; another operation is NOTIMP. Such an
  answer is a bare header, never longer than what it answers. Another version of EDNS is BADVERS.
- Over UDP an answer has as many bytes as the client says it can take, but no more than `UDP_MOST`, which no path
  fragments. What does not fit is left out as a whole and marked as cut (TC), and the client asks again over TCP.
- The answer speaks of the name in the client's own spelling, since clients check that.
- Nothing here is authoritative or secured: AA and AD are never set. There is no SOA record, so that nobody keeps a
  "no", which holds for one client and one set of rules.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdtypes.svcbbase import SVCBBase

from egress_gateway.policy.hostname import Address

UDP_MOST = 1232
UDP_LEAST = 512
"""What every client can take (RFC 1035, 4.2.1)."""
TCP_MOST = 65_535
LONGEST_QUESTION = 4096
"""Bytes: a name, and more options than anybody sends."""

SHORTEST_QUESTION = 12
"""Bytes: a header."""
_RESPONSE, _OPCODE, _RD, _RA = 0x8000, 0x7800, 0x0100, 0x0080


@dataclass(frozen=True, slots=True)
class Question:
    """One question, as the client spelled it."""

    id: int
    name: dns.name.Name
    rdtype: dns.rdatatype.RdataType
    rdclass: dns.rdataclass.RdataClass
    kept_flags: int
    """Those of its flags that an answer repeats."""
    payload: int | None
    """The bytes that the client can take over UDP; None where it does not speak EDNS."""


@dataclass(frozen=True, slots=True)
class Why:
    """An extended error (RFC 8914); `text` is a word of ours."""

    code: dns.edns.EDECode
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    rcode: dns.rcode.Rcode
    answer: tuple[dns.rrset.RRset, ...] = ()
    why: Why | None = None


def read(data: bytes) -> Question | bytes | None:
    """The question in `data`; or what to answer to something else, None being nothing."""
    if not may_be_answered(data):
        return None
    flags, questions = struct.unpack_from("!HH", data, 2)
    if flags & _OPCODE:
        return bare(data, dns.rcode.NOTIMP)
    if questions != 1 or len(data) > LONGEST_QUESTION:
        return bare(data, dns.rcode.FORMERR)
    try:
        parsed = dns.message.from_wire(data)
        question = _question(parsed)
        if question is not None and parsed.edns > 0:
            return write(question, Reply(dns.rcode.BADVERS), udp=True)[0]
    except Exception:  # a parser of hostile bytes: any failure of it means the same
        question = None
    return question or bare(data, dns.rcode.FORMERR)


def may_be_answered(data: bytes) -> bool:
    """Whether there is a header, and it is not one of an answer."""
    return len(data) >= SHORTEST_QUESTION and not data[2] & 0x80


def _question(message: dns.message.Message) -> Question | None:
    if message.answer or message.authority or message.additional or len(message.question) != 1:
        return None
    asked = message.question[0]
    if asked.rdtype == dns.rdatatype.OPT:
        return None
    return Question(
        id=message.id,
        name=asked.name,
        rdtype=asked.rdtype,
        rdclass=asked.rdclass,
        kept_flags=message.flags & (dns.flags.RD | dns.flags.CD),
        payload=message.payload if message.edns >= 0 else None,
    )


def bare(data: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """A header that answers the one of `data` with `rcode`, one of the first sixteen."""
    number, flags = struct.unpack_from("!HH", data)
    return struct.pack("!HHHHHH", number, _RESPONSE | flags & (_OPCODE | _RD) | _RA | rcode, 0, 0, 0, 0)


def write(question: Question, reply: Reply, *, udp: bool) -> tuple[bytes, bool]:
    """The bytes to send, and whether they hold the whole answer."""
    most = min(max(question.payload or 0, UDP_LEAST), UDP_MOST) if udp else TCP_MOST
    try:
        return _message(question, reply).to_wire(max_size=most, want_shuffle=False), True
    except dns.exception.TooBig:
        cut = _message(question, Reply(reply.rcode, (), reply.why))
        cut.flags |= dns.flags.TC
        return cut.to_wire(max_size=most), False


def _message(question: Question, reply: Reply) -> dns.message.Message:
    message = dns.message.QueryMessage(id=question.id)
    message.flags = dns.flags.Flag(dns.flags.QR | dns.flags.RA | question.kept_flags)
    message.question = [dns.rrset.RRset(question.name, question.rdclass, question.rdtype)]
    message.answer = list(reply.answer)
    if question.payload is not None:
        why: list[dns.edns.Option] = [dns.edns.EDEOption(reply.why.code, reply.why.text)] if reply.why else []
        message.use_edns(0, payload=UDP_MOST, options=why)
    message.set_rcode(reply.rcode)
    return message


# --- records ---


def addresses(
    question: Question, aliases: Sequence[str], addresses: Sequence[Address], ttl: int
) -> tuple[dns.rrset.RRset, ...]:
    """The aliases from the name on, and the addresses of the last of them."""
    owner = question.name
    records = []
    for alias in map(dns.name.from_text, aliases):
        records.append(_rrset(owner, ttl, _record(dns.rdatatype.CNAME, alias.to_wire() or b"")))
        owner = alias
    return (*records, _rrset(owner, ttl, *(_record(_OF_VERSION[one.version], one.packed) for one in addresses)))


def bindings(question: Question, records: Sequence[SVCBBase], ttl: int) -> tuple[dns.rrset.RRset, ...]:
    return (_rrset(question.name, ttl, *records),)


def refused_any(question: Question, ttl: int) -> tuple[dns.rrset.RRset, ...]:
    """What RFC 8482 has for those who ask for everything."""
    return (_rrset(question.name, ttl, _record(dns.rdatatype.HINFO, b"\x07RFC8482\x00")),)


_OF_VERSION = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}


def _record(rdtype: dns.rdatatype.RdataType, wire: bytes) -> dns.rdata.Rdata:
    return dns.rdata.from_wire(dns.rdataclass.IN, rdtype, wire, 0, len(wire))


def _rrset(owner: dns.name.Name, ttl: int, *records: dns.rdata.Rdata) -> dns.rrset.RRset:
    return dns.rrset.from_rdata(owner, ttl, *records)
