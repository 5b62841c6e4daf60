"""Threats 1 to 5: a tunnel to a denied host, and a tunnel to an allowed one that is used for something else."""

import socket
from collections.abc import Callable, Sequence

import pytest

from support.gateway import read_reply
from support.http import (
    SSLV2_HELLO,
    client_hello,
    connect_refusal,
    read_alert,
    request_over,
    socks5_connect,
    tls_client,
)
from support.lab import (
    ACCESS_DENIED,
    ALLOWED,
    ALLOWED_AT,
    BYTES,
    BYTES_AT,
    DENIED,
    DENIED_AT,
    OTHER,
    UNRECOGNIZED_NAME,
    Lab,
    Way,
    alert_for,
    answered,
    bytewise,
    ended_without_a_word,
    say,
)
from support.sockets import read_exactly

NOT_ALLOWED = 2  # SOCKS5's "connection not allowed by ruleset"

both_ways = pytest.mark.parametrize("way", ["connect", "socks5"])


def test_the_allowed_ways_are_open(lab: Lab, ca) -> None:
    """The control for all the refusals below."""
    for way in ("connect", "socks5"):
        with lab.tunnel(way, ALLOWED) as sock, tls_client(sock, ALLOWED, ca.pem_path) as tls:
            assert request_over(tls, "GET", "/", {"Host": ALLOWED}).status == 200
        with lab.tunnel(way, ALLOWED, 80) as sock:
            assert request_over(sock, "GET", "/", {"Host": ALLOWED}).status == 200
        with lab.tunnel(way, BYTES, 5432) as sock:
            assert sock.recv(100) == b"hello from the database\n"


# --- 1 ---

REFUSED_TARGETS = {
    "a host without a rule": (f"{DENIED}:443", 403, "no_rule"),
    "a host without a rule, on another port": (f"{DENIED}:22", 403, "no_rule"),
    "an allowed host on a port without a rule": (f"{ALLOWED}:22", 403, "port_not_allowed"),
    "the address of a denied host": (f"{DENIED_AT}:443", 403, "no_rule"),
    "the address of an allowed host, for which there is no rule": (f"{ALLOWED_AT}:443", 403, "no_rule"),
    "an IPv6 address": ("[2001:db8::66]:443", 403, "no_rule"),
    "a name that ends in an allowed one": (f"evil{ALLOWED}:443", 403, "no_rule"),
    "a name that begins with an allowed one": (f"{ALLOWED}.evil.example:443", 403, "no_rule"),
    "a subdomain of an allowed name": (f"www.{ALLOWED}:443", 403, "no_rule"),
    "the apex of a wildcard": ("wild.example:443", 403, "no_rule"),
    "an allowed host before an at sign": (f"{ALLOWED}@{DENIED}:443", 400, "malformed_host"),
    "an allowed host behind an at sign": (f"{DENIED}@{ALLOWED}:443", 400, "malformed_host"),
    "a name with a percent-encoded NUL": (f"{ALLOWED}%00.{DENIED}:443", 400, "malformed_host"),
    "no port": (ALLOWED, 400, "malformed_host"),
    "port 0": (f"{ALLOWED}:0", 400, "malformed_host"),
    "a port that is too large": (f"{ALLOWED}:65979", 400, "malformed_host"),  # 65536 + 443
    "a port with a sign": (f"{ALLOWED}:+443", 400, "malformed_host"),
    "two ports": (f"{DENIED}:443:443", 400, "malformed_host"),
    "a URI": (f"https://{ALLOWED}/", 400, "malformed_host"),
    "a path": (f"{ALLOWED}:443/", 400, "malformed_host"),
    "nothing before the port": (":443", 400, "malformed_host"),
}


@pytest.mark.parametrize(("target", "status", "reason"), REFUSED_TARGETS.values(), ids=REFUSED_TARGETS.keys())
def test_threat_01_connect_to_denied_host(lab: Lab, target: str, status: int, reason: str) -> None:
    with lab.refused(reason) as seen:
        reply = lab.gateway.raw(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    answered(reply, status, reason)
    assert (seen.entry["method"], seen.entry["response_code"]) == ("CONNECT", status)


def test_threat_01_the_refusal_tells_host_reason_and_remedy(lab: Lab) -> None:
    refusal = connect_refusal(lab.gateway, f"{DENIED}:443")
    assert refusal.status == 403
    assert refusal.header("proxy-status") is not None
    assert "error=http_request_denied" in str(refusal.header("proxy-status"))
    assert DENIED in refusal.text
    assert "no egress rule allows this host" in refusal.text


def test_threat_01_bytes_sent_along_with_a_refused_connect_go_nowhere(lab: Lab) -> None:
    with lab.refused("no_rule"):
        head = f"CONNECT {DENIED}:443 HTTP/1.1\r\nHost: {DENIED}:443\r\n\r\n".encode()
        reply = lab.gateway.raw(head + client_hello(ALLOWED))
    answered(reply, 403, "no_rule")


def test_threat_01_connect_whose_host_header_names_another(lab: Lab) -> None:
    for target, host in ((DENIED, ALLOWED), (ALLOWED, DENIED), (ALLOWED, OTHER), (ALLOWED, f"{ALLOWED}:80")):
        with lab.refused("host_mismatch"):
            reply = lab.gateway.raw(f"CONNECT {target}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answered(reply, 421, "host_mismatch")


@pytest.mark.parametrize("line", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_threat_01_connect_with_a_body(lab: Lab, line: str) -> None:
    with lab.refused("malformed_request"):
        reply = lab.gateway.raw(f"CONNECT {ALLOWED}:443 HTTP/1.1\r\nHost: {ALLOWED}:443\r\n{line}\r\n\r\n".encode())
    answered(reply, 400, "malformed_request")


SOCKS_TARGETS = {
    "a host without a rule": (DENIED, 443, "no_rule"),
    "an allowed host on a port without a rule": (ALLOWED, 22, "port_not_allowed"),
    "an IPv4 address": (DENIED_AT, 443, "no_rule"),
    "an IPv6 address": ("2001:db8::66", 443, "no_rule"),
    "an address as a name": (DENIED_AT.encode(), 443, "no_rule"),
    "a NUL in a name": (b"allowed.example\x00.denied.example", 443, "malformed_host"),
    "a newline in a name": (b"allowed.example\r\n", 443, "malformed_host"),
    "an empty name": (b"", 443, "malformed_host"),
    "a name with a port": (b"allowed.example:443", 443, "malformed_host"),
    "an at sign": (b"allowed.example@denied.example", 443, "malformed_host"),
    "two dots": (b"allowed..example", 443, "malformed_host"),
}


@pytest.mark.parametrize(("host", "port", "reason"), SOCKS_TARGETS.values(), ids=SOCKS_TARGETS.keys())
def test_threat_01_socks5_to_denied_host(lab: Lab, host: str | bytes, port: int, reason: str) -> None:
    with lab.refused(reason):
        code, sock = socks5_connect(lab.socks, host, port)
        with sock:
            say(sock, client_hello(ALLOWED))
            assert (code, read_reply(sock)) == (NOT_ALLOWED, b"")


# --- 2 and 3 ---


@both_ways
@pytest.mark.parametrize("sni", [DENIED, f"{ALLOWED}.evil.example", "xn--allowed-9ya.example"])
def test_threat_02_sni_names_a_denied_host(lab: Lab, way: Way, sni: str) -> None:
    with lab.refused("sni_mismatch") as seen:
        assert alert_for(lab.tunnel(way, ALLOWED), client_hello(sni)) == UNRECOGNIZED_NAME
    assert seen.entry["requested_server_name"] == sni
    assert seen.entry["authority"] == f"{ALLOWED}:443"
    assert lab.gateway.metric("egress_identity_mismatches_total", claim="sni") >= 1


@both_ways
@pytest.mark.parametrize("sni", [OTHER, "a.wild.example", BYTES])
def test_threat_03_sni_names_another_allowed_host(lab: Lab, way: Way, sni: str) -> None:
    with lab.refused("sni_mismatch"):
        assert alert_for(lab.tunnel(way, ALLOWED), client_hello(sni)) == UNRECOGNIZED_NAME


@both_ways
def test_threat_03_two_names_below_one_wildcard_are_two_names(lab: Lab, way: Way) -> None:
    with lab.refused("sni_mismatch"):
        assert alert_for(lab.tunnel(way, "a.wild.example"), client_hello("b.wild.example")) == UNRECOGNIZED_NAME


# --- 4 ---

BAD_SNI = {
    "no SNI": (client_hello(no_sni=True), "sni_missing"),
    "no SNI, no extension at all beside the usual, TLS 1.2": (client_hello(no_sni=True, versions=()), "sni_missing"),
    "an IPv4 address": (client_hello(ALLOWED_AT), "sni_malformed"),
    "an IPv4 address as one number": (client_hello("3405803786"), "sni_malformed"),
    "an IPv6 address": (client_hello("2001:db8::10"), "sni_malformed"),
    "an IPv6 address in brackets": (client_hello("[2001:db8::10]"), "sni_malformed"),
    "two names": (client_hello(ALLOWED, two_names=DENIED), "sni_malformed"),
    "the same name twice in one list": (client_hello(ALLOWED, two_names=ALLOWED), "sni_malformed"),
    "two server_name extensions": (client_hello(ALLOWED, duplicate=DENIED), "sni_malformed"),
    "two server_name extensions, the denied first": (client_hello(DENIED, duplicate=ALLOWED), "sni_malformed"),
    "the same extension twice": (client_hello(ALLOWED, duplicate=ALLOWED), "sni_malformed"),
    "a NUL": (client_hello(b"allowed.example\x00.denied.example"), "sni_malformed"),
    "a NUL at the end": (client_hello(b"allowed.example\x00"), "sni_malformed"),
    "a newline": (client_hello(b"allowed.example\n"), "sni_malformed"),
    "a carriage return and a header": (client_hello(b"allowed.example\r\nX: y"), "sni_malformed"),
    "a space": (client_hello(b" allowed.example"), "sni_malformed"),
    "an empty name": (client_hello(b""), "sni_malformed"),
    "a name with a port": (client_hello(b"allowed.example:443"), "sni_malformed"),
    "a wildcard": (client_hello(b"*.example"), "sni_malformed"),
    "bytes above ASCII": (client_hello("b\u00fccher.example"), "sni_malformed"),
    "an escape code": (client_hello(b"\x1b[2Jallowed.example"), "sni_malformed"),
    "two dots at the end": (client_hello(b"allowed.example.."), "sni_malformed"),
    "a label of 64 characters": (client_hello(b"a" * 64 + b".example"), "sni_malformed"),
    "a name of 300 characters": (client_hello(b".".join([b"a" * 59] * 5)), "sni_malformed"),
    "another type of name": (client_hello(ALLOWED, name_type=1), "sni_malformed"),
    "a list that is shorter than it says": (
        client_hello(no_sni=True, extra_extensions=[(0, b"\x00\x40\x00\x00\x0fallowed.example")]),
        "malformed_hello",
    ),
    "bytes after the list": (
        client_hello(no_sni=True, extra_extensions=[(0, b"\x00\x12\x00\x00\x0fallowed.exampleXX")]),
        "sni_malformed",
    ),
    "an empty extension": (client_hello(no_sni=True, extra_extensions=[(0, b"")]), "malformed_hello"),
}


@pytest.mark.parametrize(("hello", "reason"), BAD_SNI.values(), ids=BAD_SNI.keys())
def test_threat_04_no_usable_sni(lab: Lab, hello: bytes, reason: str) -> None:
    expected = ACCESS_DENIED if reason == "malformed_hello" else UNRECOGNIZED_NAME
    with lab.refused(reason):
        assert alert_for(lab.tunnel("connect", ALLOWED), hello) == expected


@pytest.mark.parametrize("reason", ["sni_missing", "sni_malformed", "malformed_hello"])
def test_threat_04_no_usable_sni_through_socks5(lab: Lab, reason: str) -> None:
    expected = ACCESS_DENIED if reason == "malformed_hello" else UNRECOGNIZED_NAME
    hellos = {what: hello for what, (hello, why) in BAD_SNI.items() if why == reason}
    with lab.refused(reason, times=len(hellos)):
        heard = {what: alert_for(lab.tunnel("socks5", ALLOWED), hello) for what, hello in hellos.items()}
    assert heard == dict.fromkeys(hellos, expected)


BAD_HELLOS = {
    "another handshake message": client_hello(ALLOWED, handshake_type=2),
    "bytes after the hello in its record": client_hello(ALLOWED, trailing=b"x"),
    "no cipher suite": client_hello(ALLOWED, ciphers=()),
    "no compression method": client_hello(ALLOWED, compression=b""),
    "an extension twice": client_hello(ALLOWED, extra_extensions=[(0x17, b"")]),
    "a shorter length than there are bytes": client_hello(ALLOWED, handshake_length=80),
    "an empty record first": b"\x16\x03\x01\x00\x00" + client_hello(ALLOWED),
    "an alert record first, in the clothes of TLS": b"\x16\x03\x01\x00\x01\x01" + b"\x15\x03\x01\x00\x02\x01\x00",
    "a record longer than TLS allows": b"\x16\x03\x01\x48\x00" + client_hello(ALLOWED)[5:] + bytes(0x4800),
}


@pytest.mark.parametrize("hello", BAD_HELLOS.values(), ids=BAD_HELLOS.keys())
def test_threat_04_a_hello_that_is_none(lab: Lab, hello: bytes) -> None:
    with lab.refused("malformed_hello"):
        assert alert_for(lab.tunnel("connect", ALLOWED), hello) == ACCESS_DENIED


# --- 5 ---

SSH = b"SSH-2.0-OpenSSH_9.6\r\n"
GET = f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode()
NOT_TLS_NOT_HTTP: dict[str, Sequence[bytes]] = {
    "SSH": [SSH],
    "SSH, one byte at a time": bytewise(SSH),
    "SSH, after one byte": [SSH[:1], SSH[1:]],
    "SSH, after two bytes": [SSH[:2], SSH[2:]],
    "an empty line before a request": [b"\r\n" + GET],
    "a newline before a request": [b"\n" + GET],
    "an empty line before a request, one byte at a time": bytewise(b"\r\n" + GET),
    "a space before a request": [b" " + GET],
    "a method in small letters": [GET.lower()],
    "a method of 40 letters": [b"G" * 40 + b" / HTTP/1.1\r\n\r\n"],
    "a NUL before a hello": [b"\x00" + client_hello(ALLOWED)],
    "SSLv2 hello": [SSLV2_HELLO],
    "SSLv2 hello, one byte at a time": bytewise(SSLV2_HELLO),
    "a TLS alert": [b"\x15\x03\x01\x00\x02\x01\x00"],
    "TLS application data": [b"\x17\x03\x03\x00\x05hello"],
    "a hello of TLS 4": [client_hello(ALLOWED, record_version=0x0401)],
    "zeros": [bytes(2000)],
    "a DNS query over TCP": [bytes.fromhex("001d123401000001000000000000076578616d706c6503636f6d0000010001")],
    "SOCKS4": [b"\x04\x01\x01\xbb\xcb\x00\x71\x42\x00"],
    "SOCKS5": [b"\x05\x01\x00"],
    "a PROXY protocol v2 header and a hello": [
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + client_hello(ALLOWED)
    ],
}


@pytest.mark.parametrize("pieces", NOT_TLS_NOT_HTTP.values(), ids=NOT_TLS_NOT_HTTP.keys())
def test_threat_05_neither_tls_nor_http(lab: Lab, pieces: Sequence[bytes]) -> None:
    with lab.refused("protocol_unknown"):
        ended_without_a_word(lab.tunnel("connect", ALLOWED), pieces)


def test_threat_05_neither_tls_nor_http_through_socks5(lab: Lab) -> None:
    with lab.refused("protocol_unknown", times=len(NOT_TLS_NOT_HTTP)):
        for pieces in NOT_TLS_NOT_HTTP.values():
            ended_without_a_word(lab.tunnel("socks5", ALLOWED), pieces)


BEGINS_LIKE_HTTP = {
    "a PROXY protocol line and a hello": (
        b"PROXY TCP4 192.0.2.1 203.0.113.66 1 443\r\n" + client_hello(ALLOWED),
        400,
        "malformed_request",
    ),
    "SMTP, to the end of its first words": (b"EHLO client.example\r\n\r\n", 400, "malformed_request"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400, "malformed_request"),
    "HTTP/2 in its request line": (b"GET / HTTP/2.0\r\nHost: allowed.example\r\n\r\n", 400, "malformed_request"),
}


@pytest.mark.parametrize(("data", "status", "reason"), BEGINS_LIKE_HTTP.values(), ids=BEGINS_LIKE_HTTP.keys())
def test_threat_05_what_only_begins_like_http(lab: Lab, data: bytes, status: int, reason: str) -> None:
    with lab.refused(reason), lab.tunnel("connect", ALLOWED) as sock:
        say(sock, data)
        answered(read_reply(sock), status, reason)


def test_threat_05_what_begins_like_http_and_waits_for_an_answer(in_a_hurry: Callable[[str], Lab]) -> None:
    lab = in_a_hurry("egress_header_timeout")
    with lab.refused("client_timeout"), lab.tunnel("connect", ALLOWED) as sock:
        say(sock, b"EHLO client.example\r\n")
        answered(read_reply(sock, 8), 408, "client_timeout")  # the usual timeout is ten


def test_threat_05_record_versions_that_only_some_take_for_tls(lab: Lab) -> None:
    """mitmproxy's own guess calls these raw TCP, and lets them pass."""
    versions = range(0x0304, 0x0380)
    with lab.refused("protocol_unknown", times=len(versions)):
        for version in versions:
            ended_without_a_word(lab.tunnel("connect", ALLOWED), client_hello(DENIED, record_version=version))


def test_threat_05_waiting_for_the_server_to_speak_first(in_a_hurry: Callable[[str], Lab]) -> None:
    """Or saying too little to be understood. All at once, since each takes the whole egress_hello_timeout."""
    lab = in_a_hurry("egress_hello_timeout")
    ways: list[tuple[Way, int, bytes]] = [
        ("connect", 443, b""),
        ("socks5", 443, b""),
        ("connect", 80, b""),
        ("connect", 443, b"GE"),
        ("connect", 443, b"\x16\x03"),
        ("socks5", 80, b"PRI * HTTP/2.0"),
    ]
    with lab.refused("client_timeout", times=len(ways)):
        tunnels = [lab.tunnel(way, ALLOWED, port) for way, port, _ in ways]
        for sock, (_, _, said) in zip(tunnels, ways, strict=True):
            say(sock, said)
        for sock in tunnels:
            ended_without_a_word(sock, b"", 8)  # the usual timeout is ten


def test_threat_05_a_few_bytes_and_the_end(lab: Lab) -> None:
    with lab.refused("protocol_unknown"), lab.tunnel("connect", ALLOWED) as sock:
        say(sock, b"GE")
        sock.shutdown(socket.SHUT_WR)
        assert read_reply(sock) == b""


@both_ways
def test_threat_05_tls_to_a_port_for_plain_http(lab: Lab, way: Way) -> None:
    with lab.refused("protocol_not_allowed"):
        assert alert_for(lab.tunnel(way, ALLOWED, 80), client_hello(ALLOWED)) == ACCESS_DENIED


@both_ways
def test_threat_05_a_tcp_rule_takes_any_bytes(lab: Lab, way: Way) -> None:
    """The other side of "refused unless a tcp rule covers host and port"."""
    for pieces in ([SSH], bytewise(SSH), [SSLV2_HELLO], [client_hello(DENIED, record_version=0x0304)]):
        with lab.tunnel(way, BYTES, 5432) as sock:
            say(sock, pieces)
            expected = b"hello from the database\n" + b"".join(pieces)
            assert read_exactly(sock, len(expected)) == expected
    lab.wire.assert_nothing_left(DENIED_AT, name=DENIED)
    assert {packet.dst for packet in lab.wire.packets if packet.dport == 5432} == {BYTES_AT}


def test_threat_05_an_alert_is_all_that_a_refused_client_of_tls_hears(lab: Lab) -> None:
    with lab.tunnel("connect", ALLOWED) as sock:
        say(sock, client_hello(DENIED))
        assert read_alert(sock) == UNRECOGNIZED_NAME
        assert bytes(read_reply(sock)) == b""
