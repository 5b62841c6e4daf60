"""A second ClientHello must say what the first one said, and nothing else may stand before it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client_hello import BadHello, ClientHello
from egress_gateway.relay.hello_retry import SecondHello, asks_to_retry
from support.client_hello import client_hello

# RFC 8446, 4.1.3: the random of a HelloRetryRequest.
RETRY = hashlib.sha256(b"HelloRetryRequest").digest()
FIRST = ClientHello(Hostname("a.example"), ech=False)
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"


def server_hello(random: bytes = RETRY, *, kind: int = 2, record_size: int = 16_384, record_type: int = 22) -> bytes:
    body = b"\x03\x03" + random + b"\x00\x13\x01\x00\x00\x00"
    message = bytes([kind]) + len(body).to_bytes(3) + body
    pieces = [message[start : start + record_size] for start in range(0, len(message), record_size)]
    return b"".join(bytes([record_type, 3, 3]) + len(piece).to_bytes(2) + piece for piece in pieces)


ANSWERS: dict[str, tuple[bytes, bool]] = {
    "a HelloRetryRequest": (server_hello(), True),
    "in records of one byte": (server_hello(record_size=1), True),
    "a ServerHello": (server_hello(bytes(32)), False),
    "a random that only begins alike": (server_hello(RETRY[:31] + b"\0"), False),
    "another handshake message": (server_hello(kind=4), False),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", False),
    "application data": (server_hello(record_type=23), False),
    "no TLS at all": (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
}


@pytest.mark.parametrize(("data", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_what_asks_for_a_second_hello_is_known_one_byte_at_a_time(data: bytes, expected: bool) -> None:
    answers = [asks_to_retry(data[:length]) for length in range(len(data) + 1)]
    assert answers[0] is None
    known = [answer for answer in answers if answer is not None]
    assert set(known) == {expected}
    assert answers == [None] * (len(answers) - len(known)) + known


@given(st.binary(max_size=80))
def test_any_bytes_of_a_destination_are_taken(data: bytes) -> None:
    answers = [asks_to_retry(data[:length]) for length in range(len(data) + 1)]
    assert len({answer for answer in answers if answer is not None}) <= 1


def read(data: bytes, first: ClientHello = FIRST, *, limit: int = 65_536) -> bool:
    """One byte at a time; the answer must come with the last byte and not before."""
    reader = SecondHello(first, limit)
    for length in range(len(data)):
        assert not reader.read(data[:length])
    return reader.read(data)


@pytest.mark.parametrize(
    "data",
    [
        client_hello("a.example"),
        client_hello("A.EXAMPLE."),
        CHANGE_CIPHER_SPEC + client_hello("a.example"),
        b"\x17\x03\x03\x00\x05early" + CHANGE_CIPHER_SPEC + client_hello("a.example", record_size=60),
    ],
    ids=["as it is", "another spelling", "after change_cipher_spec", "after early data"],
)
def test_a_second_hello_that_says_the_same(data: bytes) -> None:
    assert read(data)


REFUSED: dict[str, tuple[bytes, Reason]] = {
    "another name": (client_hello("evil.example"), Reason.SNI_MISMATCH),
    "another name after change_cipher_spec": (CHANGE_CIPHER_SPEC + client_hello("evil.example"), Reason.SNI_MISMATCH),
    "no name": (client_hello(no_sni=True), Reason.SNI_MISMATCH),
    "two names": (client_hello("a.example", two_names="evil.example"), Reason.SNI_MALFORMED),
    "encrypted_client_hello that the first had not": (client_hello("a.example", ech=True), Reason.ECH_DENIED),
    "another message": (client_hello("a.example", handshake_type=11), Reason.MALFORMED_HELLO),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", Reason.MALFORMED_HELLO),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_second_hello_that_says_something_else(data: bytes, reason: Reason) -> None:
    with pytest.raises(BadHello) as caught:
        read(data)
    assert caught.value.reason is reason


def test_encrypted_client_hello_in_both() -> None:
    assert read(client_hello("a.example", ech=True), ClientHello(Hostname("a.example"), ech=True))


def test_too_much_before_it() -> None:
    with pytest.raises(BadHello) as caught:
        SecondHello(FIRST, 4096).read(b"\x17\x03\x03\x10\x00" + bytes(4096))
    assert caught.value.reason is Reason.HELLO_TOO_LARGE
