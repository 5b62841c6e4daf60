# ruff: noqa: RUF001 - full-width and other look-alikes are what is tested
"""One canonical form for a host: what is a name, what is an address, and what is refused."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egress_gateway.policy.hostname import (
    MalformedHost,
    canonical_name,
    format_authority,
    format_host,
    parse_authority,
    parse_host,
    parse_port,
)

NAMES = {
    "a name as it should be": ("www.example.com", "www.example.com"),
    "upper case and a trailing dot": ("A.Example.COM.", "a.example.com"),
    "an underscore": ("a_b.example.com", "a_b.example.com"),
    "a single label": ("localhost", "localhost"),
    "a label of 63": (f"{'x' * 63}.com", f"{'x' * 63}.com"),
    "253 characters": (".".join(["x" * 49] * 5)[:249] + ".com", ".".join(["x" * 49] * 5)[:249] + ".com"),
    "253 characters and a trailing dot": (("x" * 49 + ".") * 5 + "com.", ("x" * 49 + ".") * 5 + "com"),
    "an umlaut": ("Bücher.example", "xn--bcher-kva.example"),
    "the same as an A-label": ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    "a sharp s, not transitional": ("faß.example", "xn--fa-hia.example"),
    "full-width letters": ("ｗｗｗ．ｅｘａｍｐｌｅ．ｃｏｍ", "www.example.com"),
    "ideographic full stops": ("www。example。com", "www.example.com"),
    "digits in front": ("1.2.3.com", "1.2.3.com"),
    "digits and letters at the end": ("example.0c0m", "example.0c0m"),
    "nearly hexadecimal at the end": ("example.0xg", "example.0xg"),
}


@pytest.mark.parametrize(("text", "expected"), NAMES.values(), ids=NAMES)
def test_a_name_has_one_canonical_form(text: str, expected: str) -> None:
    assert parse_host(text) == expected
    assert canonical_name(text) == expected


ADDRESSES = {
    "dotted decimal": ("127.0.0.1", "127.0.0.1"),
    "two parts": ("127.1", "127.0.0.1"),
    "three parts": ("127.0.1", "127.0.0.1"),
    "the last part fills what is left": ("10.65535", "10.0.255.255"),
    "one decimal number": ("2130706433", "127.0.0.1"),
    "one hexadecimal number": ("0x7f000001", "127.0.0.1"),
    "hexadecimal in upper case": ("0X7F.1", "127.0.0.1"),
    "octal": ("0177.0.0.1", "127.0.0.1"),
    "one octal number": ("017700000001", "127.0.0.1"),
    "mixed": ("0x7f.0.0.01", "127.0.0.1"),
    "no digits after 0x": ("0x", "0.0.0.0"),
    "a trailing dot": ("127.0.0.1.", "127.0.0.1"),
    "full-width digits": ("１２７．０．０．１", "127.0.0.1"),
    "superscript and circled digits": ("①②⑦.⁰.₀.1", "127.0.0.1"),
    "the largest": ("4294967295", "255.255.255.255"),
    "IPv6 in brackets": ("[2001:DB8::0:1]", "2001:db8::1"),
    "IPv6 bare": ("2001:db8::1", "2001:db8::1"),
    "IPv6 written out": ("[2001:0db8:0000:0000:0000:0000:0000:0001]", "2001:db8::1"),
    "IPv4-mapped": ("[::ffff:127.0.0.1]", "127.0.0.1"),
    "IPv4-mapped in hexadecimal": ("[::ffff:7f00:1]", "127.0.0.1"),
    "IPv4-mapped, bare": ("::FFFF:127.0.0.1", "127.0.0.1"),
    "IPv4-compatible stays IPv6": ("[::7f00:1]", "::7f00:1"),
}


@pytest.mark.parametrize(("text", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_what_a_resolver_reads_as_an_address_is_one(text: str, expected: str) -> None:
    assert parse_host(text) == ip_address(expected)


MALFORMED = {
    "nothing": "",
    "a dot": ".",
    "two dots": "..",
    "a dot in front": ".example.com",
    "an empty label": "a..example.com",
    "two trailing dots": "a.example.com..",
    "two trailing dots, one of them full-width": "a.example.com.．",
    "a percent-encoded NUL": "a.example.com%00.evil",
    "a NUL": "evil.com\0.example.com",
    "a line feed": "example.com\n",
    "a carriage return": "example.com\r",
    "a space": "exam ple.com",
    "a tab": "\texample.com",
    "a no-break space": "exam\u00a0ple.com",
    "a slash": "example.com/",
    "what maps to a slash": "example.com℀",
    "a full-width slash": "example.com／x",
    "a full-width colon": "example.com：80",
    "a full-width at sign": "user＠example.com",
    "a backslash": "example.com\\x",
    "user information": "user@example.com",
    "a comma": "a.com,b.com",
    "a star": "*.example.com",
    "a question mark": "example.com?x",
    "a number sign": "example.com#x",
    "a semicolon": "example.com;x",
    "a label of 64": f"{'x' * 64}.com",
    "254 characters": ("x" * 49 + ".") * 5 + "comx",
    "an A-label that gets too long": "ü" * 60 + ".com",
    "a very long text": "x." * 100_000,
    "a zero-width joiner": "exam\u200dple.com",
    "a lone surrogate": "\ud800.com",
    "a low surrogate, as from bytes that are not UTF-8": "exam\udcffple.com",
    "a right-to-left mix": "a\u05d0b.com",
    "a number at the end of a name": "example.com.1",
    "a hexadecimal number at the end of a name": "example.0x1",
    "five parts": "1.2.3.4.5",
    "a part above 255": "256.0.0.1",
    "a last part that is too large": "127.0.65536",
    "a number above 32 bits": "4294967296",
    "an octal number that is not": "08.0.0.1",
    "an underscore among octal digits": "0_7.1",
    "an underscore among hexadecimal digits": "0x7_f.1",
    "a minus sign after 0x": "0x-7.1",
    "a minus sign": "-1.0.0.1",
    "digits that int() reads and no resolver does": "٣.1",
    "half a bracket": "[::1",
    "a bracket too much": "[::1]]",
    "IPv4 in brackets": "[127.0.0.1]",
    "a name in brackets": "[example.com]",
    "nothing in brackets": "[]",
    "a zone": "[fe80::1%eth0]",
    "a percent-encoded zone": "[fe80::1%25eth0]",
    "a port": "example.com:80",
    "an IPv6 address too long": "1:2:3:4:5:6:7:8:9",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_and_not_repaired(text: str) -> None:
    with pytest.raises(MalformedHost) as caught:
        parse_host(text)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.text("abcx0123456789.-_:[]%AZü。．１é\ud800\udcff\0\n /@,", max_size=20),
    st.lists(st.sampled_from(["0x", "0", "7", "_", "-", ".", "f", "255", "1", "127"]), max_size=8).map("".join),
)


@given(texts)
@example("0x-7.1")
@example("\udcff")
@example("xn--a-ecp.ru")
@example("xn--0")
def test_any_text_is_a_host_or_malformed_and_canonical_hosts_stay_as_they_are(text: str) -> None:
    try:
        host = parse_host(text)
    except MalformedHost:
        return
    assert parse_host(str(host)) == host
    assert parse_host(format_host(host)) == host
    assert parse_authority(format_authority(host, 8443)) == (host, 8443)
    if isinstance(host, str):
        assert host.isascii()
        assert host == host.lower()
        assert len(host) <= 253
        assert all(1 <= len(label) <= 63 for label in host.split("."))


@given(st.lists(st.sampled_from([*"0123456789abcdefx", "0x", "."]), min_size=1, max_size=12).map("".join))
def test_every_ipv4_spelling_of_the_c_library_is_recognised(text: str) -> None:
    """inet_aton(3) is what getaddrinfo(3) reads numbers with, so what it takes must never pass as a name."""
    try:
        theirs = IPv4Address(socket.inet_aton(text))
    except OSError:
        return
    try:
        ours = parse_host(text)
    except MalformedHost:
        return
    assert ours == theirs


@given(st.integers(0, 2**32 - 1), st.sampled_from(["%d", "0x%x", "0%o"]))
def test_every_ipv4_address_as_one_number(number: int, spelling: str) -> None:
    assert parse_host(spelling % number) == IPv4Address(number)


@given(st.integers(0, 2**128 - 1))
def test_every_ipv6_address_in_brackets(number: int) -> None:
    address = IPv6Address(number)
    assert parse_host(f"[{address}]") == (address.ipv4_mapped or address)


AUTHORITIES = {
    "name and port": ("www.example.com:443", None, "www.example.com", 443),
    "no port, with a default": ("www.example.com", 80, "www.example.com", 80),
    "an empty port, with a default": ("www.example.com:", 80, "www.example.com", 80),
    "a trailing dot before the port": ("www.example.com.:443", None, "www.example.com", 443),
    "an address and a port": ("127.1:80", None, "127.0.0.1", 80),
    "IPv6 and a port": ("[2001:db8::1]:443", None, "2001:db8::1", 443),
    "IPv6 without a port": ("[2001:db8::1]", 80, "2001:db8::1", 80),
    "zeros before the port": ("a.example:00080", None, "a.example", 80),
    "the largest port": ("a.example:65535", None, "a.example", 65535),
}


@pytest.mark.parametrize(("text", "default", "host", "port"), AUTHORITIES.values(), ids=AUTHORITIES)
def test_an_authority_is_a_host_and_a_port(text: str, default: int | None, host: str, port: int) -> None:
    assert parse_authority(text, default) == (parse_host(host), port)


BAD_AUTHORITIES = {
    "nothing": ("", 80),
    "no port and no default": ("example.com", None),
    "an empty port and no default": ("example.com:", None),
    "only a port": (":80", None),
    "port 0": ("example.com:0", None),
    "port 65536": ("example.com:65536", None),
    "a port of six digits": ("example.com:000080", None),
    "a signed port": ("example.com:+80", None),
    "a negative port": ("example.com:-80", None),
    "a port with an underscore": ("example.com:8_0", None),
    "a port with a space": ("example.com: 80", None),
    "a full-width port": ("example.com:８０", None),
    "a superscript port": ("example.com:²", None),
    "two ports": ("example.com:80:80", None),
    "user information": ("user@example.com:80", None),
    "user and password": ("user:pass@example.com:80", None),
    "IPv6 without brackets": ("2001:db8::1", 80),
    "IPv6 without brackets, with a port": ("2001:db8::1:80", None),
    "something after the bracket": ("[::1]x:80", None),
    "no closing bracket": ("[::1:80", None),
    "a path": ("example.com:80/", None),
}


@pytest.mark.parametrize(("text", "default"), BAD_AUTHORITIES.values(), ids=BAD_AUTHORITIES)
def test_a_bad_authority_is_refused(text: str, default: int | None) -> None:
    with pytest.raises(MalformedHost):
        parse_authority(text, default)


@given(texts, st.sampled_from([None, 80]))
def test_any_text_is_an_authority_or_malformed(text: str, default: int | None) -> None:
    try:
        host, port = parse_authority(text, default)
    except MalformedHost:
        return
    assert 1 <= port <= 65535
    assert parse_authority(format_authority(host, port)) == (host, port)


@given(st.text(max_size=8))
def test_any_text_is_a_port_or_malformed(text: str) -> None:
    try:
        assert 1 <= parse_port(text) <= 65535
    except MalformedHost:
        assert not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535)


def test_hosts_as_they_stand_in_an_authority() -> None:
    six = parse_host("2001:db8::1")
    assert format_host(six) == "[2001:db8::1]"
    assert format_authority(six, 443) == "[2001:db8::1]:443"
    assert format_authority(six, 443, 443) == "[2001:db8::1]"
    assert format_authority(parse_host("a.example"), 80, 443) == "a.example:80"
