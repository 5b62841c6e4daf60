"""DNS: a question with EDNS, and how the gateway's refusal looks (RFC 1035, 6891, 8914).

The gateway refuses a name that no rule allows with REFUSED or, by option, NXDOMAIN, and may give the reason as an
Extended DNS Error; other servers give the same codes, but only a filter says "Blocked" or "Prohibited". Without that,
NXDOMAIN is what any resolver says of the name, and a resolver that asks for whatever a client names is a way out.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from .reading import Meaning, Reading

PORT = 53
A, AAAA = 1, 28

_HEADER = struct.Struct("!6H")
_OPT, _IN = 41, 1
_RECURSION_DESIRED, _RESPONSE = 0x0100, 0x8000
_UDP_SIZE = 1232
_EXTENDED_ERROR = 15
_NO_ERROR, _NAME_ERROR, _REFUSED = 0, 3, 5
_CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_FILTERED = {15: "Blocked", 16: "Censored", 17: "Filtered", 18: "Prohibited"}


@dataclass(frozen=True)
class Answer:
    code: int
    records: int
    """How many there are in the answer section."""
    extended: int | None = None
    """The first Extended DNS Error."""

    @property
    def filtered(self) -> bool:
        """Whether it was held back, in whichever form."""
        return self.extended in _FILTERED


class Malformed(ValueError):
    pass


def question(name: str, kind: int = A) -> bytes:
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    header = _HEADER.pack(int.from_bytes(os.urandom(2), "big"), _RECURSION_DESIRED, 1, 0, 0, 1)
    opt = b"\0" + struct.pack("!HHIH", _OPT, _UDP_SIZE, 0, 0)
    return header + encoded + struct.pack("!HH", kind, _IN) + opt


def is_answer_to(query: bytes, data: bytes) -> bool:
    return len(data) >= _HEADER.size and data[:2] == query[:2] and bool(data[2] & 0x80)


def over_tcp(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def complete_over_tcp(data: bytes) -> bool:
    return len(data) >= 2 and len(data) >= 2 + int.from_bytes(data[:2], "big")


def parse(data: bytes) -> Answer:
    """Raises `Malformed`."""
    try:
        return _parse(data)
    except (struct.error, IndexError) as error:
        raise Malformed("ends too early") from error


def _parse(data: bytes) -> Answer:
    _, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if not flags & _RESPONSE:
        raise Malformed("not a response")
    code, extended, position = flags & 0x0F, None, _HEADER.size
    for _ in range(questions):
        position = _after_name(data, position) + 4
    for _ in range(answers + authorities + additional):
        position = _after_name(data, position)
        kind, _, ttl, length = struct.unpack_from("!HHIH", data, position)
        position += 10
        if kind == _OPT:
            code |= ttl >> 24 << 4
            extended = _extended_error(data[position : position + length])
        position += length
    if position > len(data):
        raise Malformed("ends too early")
    return Answer(code, answers, extended)


def _after_name(data: bytes, position: int) -> int:
    while data[position]:
        if data[position] >= 0xC0:
            return position + 2
        position += 1 + data[position]
    return position + 1


def _extended_error(options: bytes) -> int | None:
    position = 0
    while position < len(options):
        option, length = struct.unpack_from("!HH", options, position)
        if option == _EXTENDED_ERROR:
            found: int = struct.unpack_from("!H", options, position + 4)[0]
            return found
        position += 4 + length
    return None


def read(data: bytes) -> Reading:
    """An answer about the name that no rule allows."""
    try:
        answer = parse(data)
    except Malformed as error:
        return Reading(Meaning.OTHER, f"not DNS ({error})")
    words = _CODES.get(answer.code, f"code {answer.code}")
    if answer.extended is not None and answer.filtered:
        return Reading(Meaning.SIGNED, f"{words} ({_FILTERED[answer.extended]})")
    if answer.code == _REFUSED:
        return Reading(Meaning.REFUSAL, words)
    if answer.code == _NAME_ERROR:
        return Reading(Meaning.OTHER, f"{words}, as any resolver says")
    if answer.code == _NO_ERROR:
        return Reading(Meaning.OTHER, f"{words} with {answer.records} records")
    return Reading(Meaning.FAILURE, words)
