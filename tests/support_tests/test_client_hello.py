"""The hello builder: real TLS accepts it unbent, and each bend does what it says."""

import ssl

import pytest
from mitmproxy.proxy.layers.tls import parse_client_hello

from support.ca import SessionCa
from support.client_hello import ENCRYPTED_CLIENT_HELLO, SERVER_NAME, SSLV2_HELLO, client_hello

NAME = "www.example.com"


def shake(ca: SessionCa, hello: bytes, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[bytes, list]:
    """What OpenSSL answers to a hello, and the names it read."""
    context = ca.issue(NAME).server_context()
    context.maximum_version = maximum
    names: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(hello)
    with pytest.raises(ssl.SSLError) as caught:
        tls.do_handshake()
    if not isinstance(caught.value, ssl.SSLWantReadError):
        names.append(f"refused: {caught.value.reason}")
    return outgoing.read(), names


def server_names(hello: bytes) -> list[bytes]:
    parsed = parse_client_hello(hello)
    assert parsed is not None
    return [data for kind, data in parsed.extensions if kind == SERVER_NAME]


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "bend",
    [
        {},
        {"grease": True},
        {"post_quantum": True},
        {"ech": True},
        {"padding": 5000},
        {"record_size": 7},
        {"record_version": 0x0303},
        {"versions": ()},
        {"extra_extensions": [(0xABCD, b"extra")]},
        {"session_id": b""},
    ],
    ids=str,
)
def test_openssl_answers_a_hello_that_is_not_bent_too_far(ca: SessionCa, bend: dict, maximum) -> None:
    answer, names = shake(ca, client_hello(NAME, **bend), maximum)
    assert names == [NAME]
    assert answer[:1] == b"\x16"
    assert answer[5:6] == b"\x02"  # ServerHello


def test_openssl_negotiates_tls_1_3_unbent(ca: SessionCa) -> None:
    assert b"\x00\x2b\x00\x02\x03\x04" in shake(ca, client_hello(NAME))[0]
    assert b"\x00\x2b\x00\x02\x03\x04" not in shake(ca, client_hello(NAME, versions=()))[0]


@pytest.mark.parametrize(
    "bend",
    [
        {"duplicate": "evil.example"},
        {"handshake_type": 2},
        {"record_version": 0x0404},
        {"compression": b""},
        {"sni": b"a\x00b"},
    ],
    ids=str,
)
def test_openssl_refuses_a_hello_that_is(ca: SessionCa, bend: dict) -> None:
    answer, names = shake(ca, client_hello(**{"sni": NAME} | bend))
    assert answer[:1] in (b"\x15", b"")  # an alert, or not even that
    assert str(names[-1]).startswith("refused")


def test_the_names_are_where_they_were_asked_for() -> None:
    assert server_names(client_hello(no_sni=True)) == []
    assert server_names(client_hello("a.b")) == [b"\x00\x06\x00\x00\x03a.b"]
    assert server_names(client_hello("a.b", two_names="c.d")) == [b"\x00\x0c\x00\x00\x03a.b\x00\x00\x03c.d"]
    assert server_names(client_hello("a.b", duplicate="c.d")) == [
        b"\x00\x06\x00\x00\x03a.b",
        b"\x00\x06\x00\x00\x03c.d",
    ]
    assert server_names(client_hello(b"a\nb", name_type=1)) == [b"\x00\x06\x01\x00\x03a\nb"]


def test_the_other_bends_are_where_they_were_asked_for() -> None:
    hello = client_hello(ech=b"body", record_version=0x037F, record_type=0x17, handshake_type=9, handshake_length=3)
    assert hello[:3] == b"\x17\x03\x7f"
    assert hello[5:9] == b"\x09\x00\x00\x03"
    assert ENCRYPTED_CLIENT_HELLO.to_bytes(2) + b"\x00\x04body" in hello
    assert client_hello(trailing=b"end").endswith(b"end")
    assert len(client_hello(padding=100)) == len(client_hello()) + 104
    assert SSLV2_HELLO[0] & 0x80
    assert len(SSLV2_HELLO) == 2 + SSLV2_HELLO[1]
