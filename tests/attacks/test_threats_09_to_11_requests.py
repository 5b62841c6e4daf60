"""Threats 9 to 11: requests whose claims contradict each other, and connections that change their mind."""

import pytest

from support.gateway import read_reply
from support.http import read_response, request_over
from support.lab import ALLOWED, ALLOWED_AT, DENIED, DENIED_AT, OTHER, OTHER_AT, Lab, Way, answered, say

both_ways = pytest.mark.parametrize("way", ["connect", "socks5"])


def request(target: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", *lines, "", ""]).encode("latin-1")


# --- 9 ---

CONTRADICTIONS = {
    "denied in the URI, allowed in Host": (f"http://{DENIED}/", ALLOWED, 403, "no_rule"),
    "allowed in the URI, denied in Host": (f"http://{ALLOWED}/", DENIED, 421, "host_mismatch"),
    "two allowed hosts": (f"http://{ALLOWED}/", OTHER, 421, "host_mismatch"),
    "two names below one wildcard": ("http://a.wild.example/", "b.wild.example", 421, "host_mismatch"),
    "the name in the URI, its address in Host": (f"http://{ALLOWED}/", ALLOWED_AT, 421, "host_mismatch"),
    "the address in the URI, its name in Host": (f"http://{ALLOWED_AT}/", ALLOWED, 403, "no_rule"),
    "another port in Host": (f"http://{ALLOWED}/", f"{ALLOWED}:443", 400, "malformed_request"),
    "another port in the URI": (f"http://{ALLOWED}:22/", ALLOWED, 403, "port_not_allowed"),
    "an allowed name as user": (f"http://{ALLOWED}@{DENIED}/", ALLOWED, 400, "malformed_host"),
    "a denied name as user": (f"http://{DENIED}@{ALLOWED}/", ALLOWED, 400, "malformed_host"),
    "user and password": (f"http://{ALLOWED}:80@{DENIED}/", ALLOWED, 400, "malformed_host"),
    "a backslash": (f"http://{ALLOWED}\\@{DENIED}/", ALLOWED, 400, "malformed_host"),
    "a backslash as path": (f"http://{DENIED}\\.{ALLOWED}/", ALLOWED, 400, "malformed_host"),
    "an at sign behind a fragment": (f"http://{ALLOWED}#@{DENIED}/", ALLOWED, 400, "malformed_host"),
    "a percent-encoded slash": (f"http://{DENIED}%2f.{ALLOWED}/", ALLOWED, 400, "malformed_host"),
    "a percent-encoded dot": ("http://allowed%2eexample/", ALLOWED, 400, "malformed_host"),
    "no host at all": ("http:///", ALLOWED, 400, "malformed_host"),
    "one slash": (f"http:/{ALLOWED}/", ALLOWED, 400, "malformed_request"),
    "another scheme": (f"ftp://{ALLOWED}/", ALLOWED, 400, "malformed_host"),
    "a scheme of WebSocket": (f"ws://{ALLOWED}/", ALLOWED, 400, "malformed_host"),
    "a path to the proxy itself": ("/", ALLOWED, 400, "malformed_request"),
    "a path that looks like a URI": (f"//{DENIED}/", ALLOWED, 400, "malformed_request"),
    "an asterisk": ("*", ALLOWED, 400, "malformed_request"),
    "a host and a port": (f"{ALLOWED}:80", ALLOWED, 400, "malformed_request"),
    "https to a port for plain http": (f"https://{ALLOWED}:80/", f"{ALLOWED}:80", 403, "protocol_not_allowed"),
}


@pytest.mark.parametrize(("target", "host", "status", "reason"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_threat_09_uri_and_host_header_differ(lab: Lab, target: str, host: str, status: int, reason: str) -> None:
    with lab.refused(reason):
        answered(lab.gateway.raw(request(target, f"Host: {host}", "Connection: close")), status, reason)
    if reason == "host_mismatch":
        assert lab.gateway.metric("egress_identity_mismatches_total", claim="host") >= 1


IN_A_TUNNEL = {
    "a denied Host": ("/", DENIED, 421, "host_mismatch"),
    "another allowed Host": ("/", OTHER, 421, "host_mismatch"),
    "an absolute URI for a denied host": (f"http://{DENIED}/", DENIED, 421, "connection_changed_host"),
    "an absolute URI for a denied host, the allowed in Host": (
        f"http://{DENIED}/",
        ALLOWED,
        421,
        "connection_changed_host",
    ),
    "an absolute URI for the allowed host, a denied in Host": (f"http://{ALLOWED}/", DENIED, 421, "host_mismatch"),
    "an absolute URI for another allowed host": (f"http://{OTHER}/", OTHER, 421, "connection_changed_host"),
    "an absolute URI for another port": (f"http://{ALLOWED}:443/", f"{ALLOWED}:443", 421, "connection_changed_host"),
    "the address as Host": ("/", ALLOWED_AT, 421, "host_mismatch"),
    "another port in Host": ("/", f"{ALLOWED}:8080", 400, "malformed_request"),
}


@both_ways
@pytest.mark.parametrize(("target", "host", "status", "reason"), IN_A_TUNNEL.values(), ids=IN_A_TUNNEL.keys())
def test_threat_09_a_request_in_a_tunnel_for_another_host(
    lab: Lab, way: Way, target: str, host: str, status: int, reason: str
) -> None:
    with lab.refused(reason), lab.tunnel(way, ALLOWED, 80) as sock:
        say(sock, request(target, f"Host: {host}", "Connection: close"))
        answered(read_reply(sock), status, reason)


def test_threat_09_the_same_before_tls_origination(lab: Lab) -> None:
    for host, status, reason in ((DENIED, 421, "host_mismatch"), (f"{ALLOWED}:444", 400, "malformed_request")):
        with lab.refused(reason):
            answered(
                lab.gateway.raw(request(f"http://{ALLOWED}:443/", f"Host: {host}", "Connection: close")), status, reason
            )


# --- 10 ---

BAD_HOSTS = {
    "two": (["Host: allowed.example", "Host: allowed.example"], "malformed_request"),
    "two, the second denied": (["Host: allowed.example", "Host: denied.example"], "malformed_request"),
    "two, in another spelling": (["Host: allowed.example", "hOST: denied.example"], "malformed_request"),
    "none": ([], "malformed_request"),
    "folded": (["Host: allowed.example", " denied.example"], "malformed_request"),
    "folded with a tab": (["Host:", "\tallowed.example"], "malformed_request"),
    "two in one, with a comma": (["Host: allowed.example, denied.example"], "malformed_host"),
    "two in one, with a space": (["Host: allowed.example denied.example"], "malformed_host"),
    "a user": (["Host: allowed.example@denied.example"], "malformed_host"),
    "a user before the allowed name": (["Host: user@allowed.example"], "malformed_host"),
    "a space inside": (["Host: allowed .example"], "malformed_host"),
    "a NUL": (["Host: allowed.example\x00.denied.example"], "malformed_request"),
    "a vertical tab": (["Host: allowed.example\x0b"], "malformed_request"),
    "an escape code": (["Host: allowed.example\x1b[2J"], "malformed_request"),
    "a path": (["Host: allowed.example/"], "malformed_host"),
    "a scheme": (["Host: http://allowed.example"], "malformed_host"),
    "a backslash": (["Host: allowed.example\\"], "malformed_host"),
    "a percent sign": (["Host: allowed%2eexample"], "malformed_host"),
    "quotes": (['Host: "allowed.example"'], "malformed_host"),
    "two dots at the end": (["Host: allowed.example.."], "malformed_host"),
    "a dot at the beginning": (["Host: .allowed.example"], "malformed_host"),
    "nothing": (["Host:"], "malformed_host"),
    "a port only": (["Host: :80"], "malformed_host"),
    "another port": (["Host: allowed.example:8080"], "malformed_request"),
    "port 0": (["Host: allowed.example:0"], "malformed_host"),
    "a port that is too large": (["Host: allowed.example:65616"], "malformed_host"),  # 65536 + 80
    "a port in words": (["Host: allowed.example:http"], "malformed_host"),
    "a port with a sign": (["Host: allowed.example:+80"], "malformed_host"),
    "two ports": (["Host: allowed.example:80:80"], "malformed_host"),
    "brackets": (["Host: [allowed.example]"], "malformed_host"),
    "an open bracket": (["Host: [2001:db8::10"], "malformed_host"),
    "an IPv6 address without brackets": (["Host: 2001:db8::10"], "malformed_host"),
    "an IPv6 zone": (["Host: [fe80::1%25eth0]"], "malformed_host"),
    "bytes that are no text": (["Host: allowed.example\xff"], "malformed_host"),
    "a soft hyphen in Latin-1": (["Host: allowed\xad.example"], "malformed_host"),
    "a label of 64 characters": ([f"Host: {'a' * 64}.example"], "malformed_host"),
    "a name of 300 characters": ([f"Host: {'.'.join(['a' * 59] * 5)}"], "malformed_host"),
}


@pytest.mark.parametrize(("lines", "reason"), BAD_HOSTS.values(), ids=BAD_HOSTS.keys())
def test_threat_10_host_header(lab: Lab, lines: list[str], reason: str) -> None:
    with lab.refused(reason):
        reply = lab.gateway.raw(request(f"http://{ALLOWED}/", *lines))
    answered(reply, 400, reason)
    assert reply.ending != "quiet", "the connection stayed open"


@pytest.mark.parametrize("reason", ["malformed_request", "malformed_host"])
def test_threat_10_host_header_in_a_tunnel(lab: Lab, reason: str) -> None:
    every = {what: lines for what, (lines, why) in BAD_HOSTS.items() if why == reason}
    with lab.refused(reason, times=len(every)):
        for what, lines in every.items():
            with lab.tunnel("connect", ALLOWED, 80) as sock:
                say(sock, request("/", *lines))
                reply = read_reply(sock)
            assert reply.startswith(b"HTTP/1.1 400 "), what
            answered(reply, 400, reason)


def test_threat_10_http_1_0_may_have_no_host_header(lab: Lab) -> None:
    """Only HTTP/1.1 asks for one; the host in the URI is the one that is judged, and the origin is told it."""
    before = len(lab.places.allowed.requests)
    reply = lab.gateway.raw(request(f"http://{ALLOWED}/", version="1.0"))
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert lab.places.allowed.requests[before].all("host") == [ALLOWED]
    with lab.refused("no_rule"):
        answered(lab.gateway.raw(request(f"http://{DENIED}/", version="1.0")), 403, "no_rule")


# --- 11 ---


def test_threat_11_keep_alive_is_judged_request_by_request(lab: Lab) -> None:
    allowed, other = lab.places.allowed, lab.places.other
    at_allowed, at_other = len(allowed.requests), len(other.requests)
    with lab.gateway.connect() as sock:
        assert request_over(sock, "GET", f"http://{ALLOWED}/1").status == 200
        with lab.refused("no_rule"):
            assert request_over(sock, "GET", f"http://{DENIED}/2").status == 403
        assert request_over(sock, "GET", f"http://{ALLOWED}/3").status == 200
        assert request_over(sock, "GET", f"http://{OTHER}/4").status == 200
        with lab.refused("host_mismatch"):
            assert request_over(sock, "GET", f"http://{ALLOWED}/5", {"Host": DENIED}).status == 421
    assert [r.target for r in allowed.requests[at_allowed:]] == ["/1", "/3"]
    assert [r.target for r in other.requests[at_other:]] == ["/4"]
    assert {r.header("host") for r in allowed.requests[at_allowed:]} == {ALLOWED}


def test_threat_11_many_hosts_on_one_connection_are_not_mixed_up(lab: Lab) -> None:
    """Beyond the sixth request, where mitmproxy's own limit for each address lies."""
    origins = {ALLOWED: lab.places.allowed, OTHER: lab.places.other}
    before = {host: len(origin.requests) for host, origin in origins.items()}
    with lab.gateway.connect() as sock:
        for number in range(20):
            for host in origins:
                response = request_over(sock, "GET", f"http://{host}/{number}")
                assert (response.status, host in response.text or origins[host].name in response.text) == (200, True)
    for host, origin in origins.items():
        assert [r.target for r in origin.requests[before[host] :]] == [f"/{n}" for n in range(20)]
        assert {r.header("host") for r in origin.requests[before[host] :]} == {host}


def test_threat_11_pipelined_requests_are_judged_one_by_one(lab: Lab) -> None:
    before = len(lab.places.allowed.requests)
    pipeline = [
        request(f"http://{host}/{number}", f"Host: {host}")
        for number, host in enumerate((ALLOWED, DENIED, OTHER, DENIED, ALLOWED))
    ]
    with lab.gateway.connect() as sock, lab.refused("no_rule", times=2, allowed=3, asks=NAMES, dials=ADDRESSES):
        say(sock, b"".join(pipeline))
        statuses = [read_response(sock).status for _ in pipeline]
    assert statuses == [200, 403, 200, 403, 200]
    assert [r.target for r in lab.places.allowed.requests[before:]] == ["/0", "/4"]


NAMES = (ALLOWED, OTHER)
ADDRESSES = (ALLOWED_AT, OTHER_AT)


@both_ways
@pytest.mark.parametrize("port", [80, 443])
def test_threat_11_a_tunnel_stays_with_its_host(lab: Lab, way: Way, port: int) -> None:
    origin = lab.places.allowed if port == 80 else lab.places.allowed_tls
    before = len(origin.requests)
    host = ALLOWED if port == 80 else f"{ALLOWED}:{port}"
    with lab.tunnel(way, ALLOWED, port) as sock:
        assert request_over(sock, "GET", "/first", {"Host": host}).status == 200
        with lab.refused("host_mismatch"):
            assert request_over(sock, "GET", "/second", {"Host": DENIED}).status == 421
    assert [r.target for r in origin.requests[before:]] == ["/first"]
    assert not [p for p in lab.wire.packets if p.dst == DENIED_AT]


def test_threat_10_connect_without_a_host_header(lab: Lab) -> None:
    with lab.refused("malformed_request"):
        reply = lab.gateway.raw(f"CONNECT {ALLOWED}:443 HTTP/1.1\r\n\r\n".encode())
    answered(reply, 400, "malformed_request")
