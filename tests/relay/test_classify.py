"""What the first bytes of a connection speak: known, not known yet, or refused; never guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.policy.request import Spoken
from egress_gateway.relay.classify import classify
from support.client_hello import SSLV2_HELLO, client_hello

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FIRST_BYTES: dict[str, tuple[bytes, Spoken]] = {
    "a ClientHello": (client_hello(), Spoken.TLS),
    "a ClientHello in a record of version 3.0": (client_hello(record_version=0x0300), Spoken.TLS),
    "a ClientHello in a record of version 3.3": (client_hello(record_version=0x0303), Spoken.TLS),
    "a record of version 3.4": (client_hello(record_version=0x0304), Spoken.OTHER),
    "a record of version 3.127": (client_hello(record_version=0x037F), Spoken.OTHER),
    "a record of version 2.0": (client_hello(record_version=0x0200), Spoken.OTHER),
    "a record of version 4.0": (client_hello(record_version=0x0400), Spoken.OTHER),
    "an SSLv2 hello": (SSLV2_HELLO, Spoken.OTHER),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x28", Spoken.OTHER),
    "TLS application data": (b"\x17\x03\x03\x00\x05hello", Spoken.OTHER),
    "a DTLS hello": (b"\x16\xfe\xff\x00\x00", Spoken.OTHER),
    "an HTTP request": (b"GET / HTTP/1.1\r\n", Spoken.HTTP),
    "a method with a hyphen": (b"M-SEARCH * HTTP/1.1\r\n", Spoken.HTTP),
    "a method of one letter": (b"A / HTTP/1.1\r\n", Spoken.HTTP),
    "a method of 32 letters": (b"A" * 32 + b" / HTTP/1.1\r\n", Spoken.HTTP),
    "a method of 33 letters": (b"A" * 33 + b" / HTTP/1.1\r\n", Spoken.OTHER),
    "a method in lower case": (b"get / HTTP/1.1\r\n", Spoken.OTHER),
    "a method that begins with a hyphen": (b"-GET / HTTP/1.1\r\n", Spoken.OTHER),
    "a method with a digit": (b"GET2 / HTTP/1.1\r\n", Spoken.OTHER),
    "an empty line first": (b"\r\nGET / HTTP/1.1\r\n", Spoken.OTHER),
    "a line feed first": (b"\nGET / HTTP/1.1\r\n", Spoken.OTHER),
    "a space first": (b" GET / HTTP/1.1\r\n", Spoken.OTHER),
    "a tab after the method": (b"GET\t/ HTTP/1.1\r\n", Spoken.OTHER),
    "the HTTP/2 preface": (PREFACE, Spoken.HTTP2),
    "a method called PRI": (b"PRI / HTTP/1.1\r\n", Spoken.HTTP),
    "a method that begins like the preface": (b"PRINT / HTTP/1.1\r\n", Spoken.HTTP),
    "the preface with another version": (b"PRI * HTTP/1.1\r\n\r\n", Spoken.HTTP),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", Spoken.OTHER),
    "SMTP, which HTTP looks like": (b"EHLO a.example\r\n", Spoken.HTTP),
    "SOCKS5": (b"\x05\x01\x00", Spoken.OTHER),
    "PostgreSQL": (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Spoken.OTHER),
    "the PROXY protocol": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Spoken.HTTP),
    "the binary PROXY protocol": (b"\r\n\r\n\0\r\nQUIT\n", Spoken.OTHER),
    "a NUL": (b"\0", Spoken.OTHER),
}


@pytest.mark.parametrize(("data", "expected"), FIRST_BYTES.values(), ids=FIRST_BYTES)
def test_first_bytes(data: bytes, expected: Spoken) -> None:
    assert classify(data[:64]) is expected
    assert classify(bytearray(data[:64])) is expected


@pytest.mark.parametrize(("data", "expected"), FIRST_BYTES.values(), ids=FIRST_BYTES)
def test_one_byte_at_a_time_the_answer_is_the_same_and_never_changes(data: bytes, expected: Spoken) -> None:
    answers = [classify(data[:length]) for length in range(len(data) + 1)]
    assert answers[0] is None
    known = [answer for answer in answers if answer is not None]
    assert set(known) == {expected}
    assert answers == [None] * (len(answers) - len(known)) + known


@given(st.one_of(st.binary(max_size=64), st.text("APRI *HTTP/2.0\r\n-", max_size=40).map(str.encode)))
def test_no_answer_is_taken_back_and_one_comes_in_bounded_time(data: bytes) -> None:
    answers = [classify(data[:length]) for length in range(len(data) + 1)]
    known = [answer for answer in answers if answer is not None]
    assert len(set(known)) <= 1
    if len(data) > 32:
        assert known
