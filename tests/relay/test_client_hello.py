"""What is judged of a ClientHello: strict, in linear time, and never another name than other parsers read."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy.layers.tls import parse_client_hello as parse_theirs

from egress_gateway.policy.hostname import Hostname, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client_hello import BadHello, ClientHello, HelloReader, parse_client_hello
from support.client_hello import ENCRYPTED_CLIENT_HELLO, ENCRYPTED_SNI, SERVER_NAME, client_hello

NAME = Hostname("www.example.com")


def read(data: bytes, limit: int = 65_536) -> ClientHello | None:
    return HelloReader(limit).read(data)


UNDERSTOOD: dict[str, tuple[bytes, ClientHello]] = {
    "as OpenSSL sends it": (client_hello(NAME), ClientHello(NAME, ech=False)),
    "TLS 1.2": (client_hello(NAME, versions=()), ClientHello(NAME, ech=False)),
    "TLS 1.0": (client_hello(NAME, versions=(), legacy_version=0x0301), ClientHello(NAME, ech=False)),
    "GREASE": (client_hello(NAME, grease=True), ClientHello(NAME, ech=False)),
    "post-quantum key shares": (client_hello(NAME, post_quantum=True), ClientHello(NAME, ech=False)),
    "all that a browser sends": (
        client_hello(NAME, grease=True, post_quantum=True, ech=True, alpn=("h2", "http/1.1")),
        ClientHello(NAME, ech=True),
    ),
    "records of one byte": (client_hello(NAME, record_size=1), ClientHello(NAME, ech=False)),
    "60 KiB of padding": (client_hello(NAME, padding=60_000), ClientHello(NAME, ech=False)),
    "no session id": (client_hello(NAME, session_id=b""), ClientHello(NAME, ech=False)),
    "upper case and a trailing dot": (client_hello("WWW.Example.COM."), ClientHello(NAME, ech=False)),
    "an A-label": (client_hello("xn--bcher-kva.example"), ClientHello(Hostname("xn--bcher-kva.example"), ech=False)),
    "no server name": (client_hello(no_sni=True), ClientHello(None, ech=False)),
    "encrypted_client_hello": (client_hello(NAME, ech=True), ClientHello(NAME, ech=True)),
    "an empty encrypted_client_hello": (
        client_hello(NAME, extra_extensions=[(ENCRYPTED_CLIENT_HELLO, b"")]),
        ClientHello(NAME, ech=True),
    ),
    "the older encrypted_server_name": (
        client_hello(NAME, extra_extensions=[(ENCRYPTED_SNI, b"x")]),
        ClientHello(NAME, ech=True),
    ),
    "encrypted_client_hello without a server name": (client_hello(no_sni=True, ech=True), ClientHello(None, ech=True)),
}


@pytest.mark.parametrize(("data", "expected"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_hellos_that_are_understood(data: bytes, expected: ClientHello) -> None:
    assert read(data) == expected


@pytest.mark.parametrize(
    "data", [data for name, (data, _) in UNDERSTOOD.items() if "padding" not in name], ids=lambda data: len(data)
)
def test_a_hello_is_known_with_its_last_byte_and_not_before(data: bytes) -> None:
    reader, whole = HelloReader(), read(data)
    for length in range(len(data)):
        assert reader.read(data[:length]) is None
    assert reader.read(data) == whole


def server_name(body: bytes) -> bytes:
    """A hello whose server_name extension has this body."""
    return client_hello(no_sni=True, extra_extensions=[(SERVER_NAME, body)])


REFUSED: dict[str, tuple[bytes, Reason]] = {
    "two server_name extensions": (client_hello(NAME, duplicate=NAME), Reason.SNI_MALFORMED),
    "two names in the extension": (client_hello(NAME, two_names="evil.example"), Reason.SNI_MALFORMED),
    "a name of another type": (client_hello(NAME, name_type=1), Reason.SNI_MALFORMED),
    "an empty name": (client_hello(""), Reason.SNI_MALFORMED),
    "an IPv4 address": (client_hello("127.0.0.1"), Reason.SNI_MALFORMED),
    "an IPv4 address in another spelling": (client_hello("0x7f.1"), Reason.SNI_MALFORMED),
    "an IPv6 address": (client_hello("2001:db8::1"), Reason.SNI_MALFORMED),
    "an IPv6 address in brackets": (client_hello("[2001:db8::1]"), Reason.SNI_MALFORMED),
    "a NUL": (client_hello(b"www.example.com\0.evil.example"), Reason.SNI_MALFORMED),
    "a NUL at the end": (client_hello(b"www.example.com\0"), Reason.SNI_MALFORMED),
    "a line feed": (client_hello(b"www.example.com\n"), Reason.SNI_MALFORMED),
    "a port": (client_hello("www.example.com:443"), Reason.SNI_MALFORMED),
    "a star": (client_hello("*.example.com"), Reason.SNI_MALFORMED),
    "a percent sign": (client_hello("www.example.com%00"), Reason.SNI_MALFORMED),
    "an empty label": (client_hello("www..example.com"), Reason.SNI_MALFORMED),
    "UTF-8": (client_hello("bücher.example".encode()), Reason.SNI_MALFORMED),
    "a label too long": (client_hello("x" * 64 + ".com"), Reason.SNI_MALFORMED),
    "an extension without a list": (server_name(b""), Reason.MALFORMED_HELLO),
    "an empty list": (server_name(b"\0\0"), Reason.SNI_MALFORMED),
    "bytes after the list": (server_name(b"\0\x04\0\0\x01ax"), Reason.SNI_MALFORMED),
    "a list longer than the extension": (server_name(b"\0\x05\0\0\x01a"), Reason.MALFORMED_HELLO),
    "a name longer than the list": (server_name(b"\0\x04\0\0\x02a"), Reason.MALFORMED_HELLO),
    "bytes after the name": (server_name(b"\0\x05\0\0\x01ab"), Reason.SNI_MALFORMED),
    "any extension twice": (
        client_hello(NAME, extra_extensions=[(0x1234, b""), (0x1234, b"")]), Reason.MALFORMED_HELLO,
    ),
    "encrypted_client_hello twice": (
        client_hello(NAME, ech=True, extra_extensions=[(ENCRYPTED_CLIENT_HELLO, b"")]), Reason.MALFORMED_HELLO,
    ),
    "bytes after the hello in its record": (client_hello(NAME, trailing=b"x"), Reason.MALFORMED_HELLO),
    "a length that is too short": (client_hello(NAME, handshake_length=50), Reason.MALFORMED_HELLO),
    "a length beyond the limit": (client_hello(NAME, handshake_length=70_000), Reason.HELLO_TOO_LARGE),
    "another handshake message": (client_hello(NAME, handshake_type=2), Reason.MALFORMED_HELLO),
    "no cipher suite": (client_hello(NAME, ciphers=()), Reason.MALFORMED_HELLO),
    "no compression method": (client_hello(NAME, compression=b""), Reason.MALFORMED_HELLO),
    "a second record that is no handshake": (
        client_hello(NAME, record_size=100)[:105] + b"\x17\x03\x03\x00\x01x", Reason.MALFORMED_HELLO,
    ),
    "a second record of version 3.4": (
        client_hello(NAME, record_size=100)[:105] + b"\x16\x03\x04\x00\x01x", Reason.MALFORMED_HELLO,
    ),
    "an empty record": (client_hello(NAME, record_size=100)[:105] + b"\x16\x03\x01\x00\x00", Reason.MALFORMED_HELLO),
    "a record too long": (b"\x16\x03\x01\x40\x01" + bytes(100), Reason.MALFORMED_HELLO),
    "an alert for a hello": (b"\x15\x03\x01\x00\x02\x02\x28", Reason.MALFORMED_HELLO),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("size", [1, 100_000], ids=["bytewise", "at once"])
def test_hellos_that_are_refused(data: bytes, reason: Reason, size: int) -> None:
    reader = HelloReader()

    def feed() -> None:
        for end in range(size, len(data) + size, size):
            assert reader.read(data[:end]) is None

    with pytest.raises(BadHello) as caught:
        feed()
    assert caught.value.reason is reason
    assert str(caught.value).isprintable()


def test_a_hello_that_never_ends_is_refused_at_the_limit() -> None:
    """By its record headers alone: the message inside would be small enough."""
    endless = client_hello(NAME, padding=3000, record_size=1)
    assert HelloReader(4096).read(endless[:4096]) is None
    with pytest.raises(BadHello) as caught:
        HelloReader(4096).read(endless[:4097])
    assert caught.value.reason is Reason.HELLO_TOO_LARGE


def test_a_hello_that_says_it_is_too_large_is_refused_at_once() -> None:
    with pytest.raises(BadHello) as caught:
        HelloReader(4096).read(client_hello(NAME, padding=60_000, record_size=4)[:9])
    assert caught.value.reason is Reason.HELLO_TOO_LARGE


def test_what_follows_a_complete_hello_is_not_looked_at() -> None:
    """A client with early data goes on at once."""
    assert read(client_hello(NAME) + b"\x14\x03\x03\x00\x01\x01\x17\x03\x03\x40\x00") == ClientHello(NAME, ech=False)


@pytest.mark.parametrize("step", [1, 7, 1000, 100_000])
def test_64_kib_in_tiny_records_take_linear_time(step: int) -> None:
    data = client_hello(NAME, padding=10_000, record_size=1)[:65_536]
    reader, buffer, started = HelloReader(), bytearray(), time.process_time()
    for at in range(0, len(data), step):
        buffer += data[at : at + step]
        if reader.read(buffer) is not None:
            break
    assert time.process_time() - started < 5  # looking at all of it again with every byte takes ten minutes


# --- against mitmproxy's parser ---


@st.composite
def bent_hello(draw: st.DrawFn) -> bytes:
    """The handshake message of a good hello in which some bytes have changed, moved or gone."""
    data = bytearray(
        draw(
            st.sampled_from(
                [
                    client_hello(NAME),
                    client_hello(NAME, grease=True, ech=True),
                    client_hello("a.example", versions=(), alpn=()),
                    client_hello(no_sni=True),
                    client_hello(NAME, two_names="evil.example"),
                    client_hello(NAME, duplicate="evil.example"),
                ]
            )
        )[5:]
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at] = draw(st.integers(0, 255))
        elif kind == 1:
            data[at] = (data[at] + draw(st.sampled_from([-1, 1]))) % 256
        elif kind == 2:
            del data[at]
        else:
            data.insert(at, draw(st.integers(0, 255)))
    return bytes(data)


@settings(max_examples=400)
@given(bent_hello())
@example(client_hello("evil.example")[5:])
def test_of_a_hello_that_is_accepted_others_read_the_same_name(message: bytes) -> None:
    record = b"\x16\x03\x01" + len(message).to_bytes(2) + message
    try:
        ours = read(record)
    except BadHello:
        return
    if ours is None:
        return
    assert starts_like_tls_record(record)
    try:
        theirs = parse_theirs(record)
    except ValueError:
        return  # an extension that says nothing about the destination is broken
    assert theirs is not None
    assert (theirs.sni or "").lower().removesuffix(".") == (ours.sni or "")


# --- against a parser that takes one vector after the other, and has no short cuts ---


class Vectors:
    """A piece of a message. Whatever does not fit is an error."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise ValueError
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def vector(self, size: int, *, least: int = 0) -> Vectors:
        taken = Vectors(self.take(int.from_bytes(self.take(size))))
        if len(taken.data) < least:
            raise ValueError
        return taken

    def end(self) -> None:
        if self.data:
            raise ValueError


def read_without_short_cuts(message: bytes) -> ClientHello:
    """What a handshake message says, by the grammar of RFC 8446 (4.1.2) and RFC 6066 (3). Raises ValueError."""
    whole = Vectors(message)
    if whole.take(1) != b"\x01":
        raise ValueError
    hello = whole.vector(3)
    whole.end()
    hello.take(34)
    hello.vector(1)
    hello.vector(2, least=1)
    hello.vector(1, least=1)
    if not hello.data:
        return ClientHello(None, ech=False)
    extensions, found = hello.vector(2), dict[int, Vectors]()
    hello.end()
    while extensions.data:
        kind = int.from_bytes(extensions.take(2))
        if kind in found:
            raise ValueError
        found[kind] = extensions.vector(2)
    ech = ENCRYPTED_CLIENT_HELLO in found or ENCRYPTED_SNI in found
    if SERVER_NAME not in found:
        return ClientHello(None, ech=ech)
    names = found[SERVER_NAME].vector(2)
    found[SERVER_NAME].end()
    if names.take(1) != b"\0":
        raise ValueError
    name = names.vector(2)
    names.end()
    host = parse_host(name.data.decode("ascii"))
    if not isinstance(host, str):
        raise ValueError
    return ClientHello(host, ech=ech)


@settings(max_examples=300)
@given(bent_hello(), st.sampled_from([1, 3, 50, 16_384]))
@example(client_hello(NAME, versions=(), alpn=())[5:], 16_384)
def test_it_accepts_what_the_grammar_accepts_and_refuses_what_it_refuses(message: bytes, record_size: int) -> None:
    if record_size < len(message):
        # What stands in a record after the hello's last is not the hello's.
        message = message[: 4 + int.from_bytes(message[1:4])]
    expected: ClientHello | None = None
    with contextlib.suppress(ValueError):
        expected = read_without_short_cuts(message)
    ours: ClientHello | None = None
    with contextlib.suppress(BadHello):
        ours = read(in_records(message, record_size))
    assert ours == expected


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_of_any_body_it_reads_what_the_grammar_says(body: bytes) -> None:
    """Also of bodies that no hello has, since nothing was a hello before."""
    for made in (body, bytes(34) + body, bytes(34) + b"\0\0\x02\x13\x01\x01\0" + len(body).to_bytes(2) + body):
        expected: ClientHello | None = None
        with contextlib.suppress(ValueError):
            expected = read_without_short_cuts(b"\x01" + len(made).to_bytes(3) + made)
        ours: ClientHello | None = None
        with contextlib.suppress(BadHello):
            ours = parse_client_hello(made)
        assert ours == expected


def in_records(message: bytes, size: int) -> bytes:
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_hello_or_refused(data: bytes) -> None:
    reasons = set()
    for attempt in (lambda: parse_client_hello(data), lambda: read(data), lambda: read(b"\x16\x03\x01" + data)):
        try:
            attempt()
        except BadHello as bad:
            reasons.add(bad.reason)
    assert reasons <= {Reason.SNI_MALFORMED, Reason.MALFORMED_HELLO, Reason.HELLO_TOO_LARGE}


def test_a_hello_without_extensions_names_nobody() -> None:
    body = b"\x03\x01" + bytes(32) + b"\0" + b"\0\x02\0\x2f" + b"\x01\0"
    assert parse_client_hello(body) == ClientHello(None, ech=False)
