"""From a request head to the facts of its decision, by three ways of naming a destination."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.policy.hostname import format_authority, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Spoken
from egress_gateway.relay.http1 import RequestHead
from egress_gateway.relay.target import (
    Asked,
    NotUnderstood,
    OriginalTarget,
    ProxyTarget,
    Target,
    TunnelTarget,
    read_connect,
    read_target,
)

PROXY = ProxyTarget()
TUNNEL = TunnelTarget(parse_host("a.example"), 443)
ORIGINAL = OriginalTarget(ip_address("192.0.2.1"), 80)


def head(target: str, *hosts: str | bytes, method: str = "GET", minor: int = 1) -> RequestHead:
    values = [host if isinstance(host, bytes) else host.encode() for host in hosts]
    return RequestHead(minor, [(b"Host", value) for value in values], method, target)


def asked(request: RequestHead, target: Target) -> tuple[str, str, bool] | Reason:
    """Host and port, path, and whether TLS was asked for."""
    found = read_target(request, target)
    if isinstance(found, NotUnderstood):
        assert found.detail.isprintable()
        return found.reason
    assert found.request.spoken is Spoken.HTTP
    return format_authority(found.request.host, found.request.port), found.path, found.wants_tls


THROUGH_A_PROXY: dict[str, tuple[RequestHead, tuple[str, str, bool] | Reason]] = {
    "an absolute URI": (head("http://a.example/x?y", "a.example"), ("a.example:80", "/x?y", False)),
    "https": (head("https://a.example/", "a.example"), ("a.example:443", "/", True)),
    "a port": (head("http://a.example:8080/", "a.example:8080"), ("a.example:8080", "/", False)),
    "a port of its own for https": (head("https://a.example:80/", "a.example"), ("a.example:80", "/", True)),
    "no path": (head("http://a.example", "a.example"), ("a.example:80", "/", False)),
    "a query without a path": (head("http://a.example?q", "a.example"), ("a.example:80", "/?q", False)),
    "OPTIONS of the server": (
        head("http://a.example", "a.example", method="OPTIONS"), ("a.example:80", "*", False),
    ),
    "the scheme in capitals": (head("HTTP://a.example/", "a.example"), ("a.example:80", "/", False)),
    "the host in capitals, with a dot": (head("http://A.EXAMPLE./", "a.Example"), ("a.example:80", "/", False)),
    "an address": (head("http://127.1/", "127.0.0.1"), ("127.0.0.1:80", "/", False)),
    "IPv6": (head("http://[2001:db8::1]:81/", "[2001:DB8:0::1]:81"), ("[2001:db8::1]:81", "/", False)),
    "a mapped address and its plain form": (head("http://[::ffff:127.0.0.1]/", "127.1"), ("127.0.0.1:80", "/", False)),
    "a path that looks like a URI": (
        head("http://a.example/http://b.example/", "a.example"), ("a.example:80", "/http://b.example/", False),
    ),
    "a path of two slashes": (head("http://a.example//b", "a.example"), ("a.example:80", "//b", False)),
    "HTTP/1.0 without Host": (head("http://a.example/", minor=0), ("a.example:80", "/", False)),
    "an empty port": (head("http://a.example:/", "a.example:"), ("a.example:80", "/", False)),
    "a path only": (head("/x", "a.example"), Reason.MALFORMED_REQUEST),
    "a star": (head("*", "a.example", method="OPTIONS"), Reason.MALFORMED_REQUEST),
    "an authority only": (head("a.example:80", "a.example"), Reason.MALFORMED_REQUEST),
    "a relative path": (head("x/y", "a.example"), Reason.MALFORMED_REQUEST),
    "a scheme with one slash": (head("http:/a.example/", "a.example"), Reason.MALFORMED_REQUEST),
    "another scheme": (head("ftp://a.example/", "a.example"), Reason.MALFORMED_HOST),
    "a file": (head("file:///etc/passwd", "a.example"), Reason.MALFORMED_HOST),
    "a fragment": (head("http://a.example/#x", "a.example"), Reason.MALFORMED_HOST),
    "a fragment right after the host": (head("http://a.example#@b.example/", "a.example"), Reason.MALFORMED_HOST),
    "no host in the URI": (head("http:///x", "a.example"), Reason.MALFORMED_HOST),
    "only a port in the URI": (head("http://:80/x", "a.example"), Reason.MALFORMED_HOST),
    "user information": (head("http://a.example@b.example/", "b.example"), Reason.MALFORMED_HOST),
    "a backslash": (head("http://a.example\\@b.example/", "a.example"), Reason.MALFORMED_HOST),
    "a percent sign in the host": (head("http://a%2eexample/", "a.example"), Reason.MALFORMED_HOST),
    "a port that is none": (head("http://a.example:0/", "a.example"), Reason.MALFORMED_HOST),
    "no Host": (head("http://a.example/"), Reason.MALFORMED_REQUEST),
    "two Hosts": (head("http://a.example/", "a.example", "b.example"), Reason.MALFORMED_REQUEST),
    "two equal Hosts": (head("http://a.example/", "a.example", "a.example"), Reason.MALFORMED_REQUEST),
    "two Hosts in HTTP/1.0": (head("http://a.example/", "a.example", "a.example", minor=0), Reason.MALFORMED_REQUEST),
    "an empty Host": (head("http://a.example/", ""), Reason.MALFORMED_HOST),
    "a Host with a comma": (head("http://a.example/", "a.example, b.example"), Reason.MALFORMED_HOST),
    "a Host with user information": (head("http://a.example/", "x@a.example"), Reason.MALFORMED_HOST),
    "a Host with a space": (head("http://a.example/", "a.example b"), Reason.MALFORMED_HOST),
    "a Host with a path": (head("http://a.example/", "a.example/x"), Reason.MALFORMED_HOST),
    "a Host with a scheme": (head("http://a.example/", "http://a.example"), Reason.MALFORMED_HOST),
    "a Host that is not UTF-8": (head("http://a.example/", b"a\xff.example"), Reason.MALFORMED_HOST),
    "a Host with two ports": (head("http://a.example/", "a.example:80:80"), Reason.MALFORMED_HOST),
    "a Host of bare IPv6": (head("http://[::1]/", "::1"), Reason.MALFORMED_HOST),
    "a Host with port 0": (head("http://a.example/", "a.example:0"), Reason.MALFORMED_HOST),
    "a Host with a signed port": (head("http://a.example/", "a.example:+80"), Reason.MALFORMED_HOST),
    "a Host with another port": (head("http://a.example/", "a.example:8080"), Reason.MALFORMED_REQUEST),
    "a Host with the port of the other scheme": (
        head("https://a.example/", "a.example:80"), Reason.MALFORMED_REQUEST,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "expected"), THROUGH_A_PROXY.values(), ids=THROUGH_A_PROXY)
def test_a_request_to_an_explicit_proxy(request_: RequestHead, expected: tuple[str, str, bool] | Reason) -> None:
    assert asked(request_, PROXY) == expected


def test_the_host_header_is_a_claim_of_its_own_and_not_the_destination() -> None:
    found = read_target(head("http://a.example/", "b.example"), PROXY)
    assert isinstance(found, Asked)
    assert (found.request.host, found.request.authority) == ("a.example", "b.example")


IN_A_TUNNEL: dict[str, tuple[RequestHead, tuple[str, str, bool] | Reason]] = {
    "a path": (head("/x", "a.example"), ("a.example:443", "/x", False)),
    "a path, and the port in Host": (head("/x", "a.example:443"), ("a.example:443", "/x", False)),
    "the server": (head("*", "a.example", method="OPTIONS"), ("a.example:443", "*", False)),
    "a URI of the same destination": (head("https://a.example/x", "a.example"), ("a.example:443", "/x", True)),
    "the same with its port": (head("http://a.example:443/x", "a.example:443"), ("a.example:443", "/x", False)),
    "HTTP/1.0 without Host": (head("/", minor=0), ("a.example:443", "/", False)),
    "a URI of another host": (head("https://b.example/", "b.example"), Reason.CONNECTION_CHANGED_HOST),
    "a URI of another port": (head("http://a.example/", "a.example"), Reason.CONNECTION_CHANGED_HOST),
    "another port in Host": (head("/", "a.example:80"), Reason.MALFORMED_REQUEST),
    "no Host": (head("/"), Reason.MALFORMED_REQUEST),
    "a star with GET": (head("*", "a.example"), Reason.MALFORMED_REQUEST),
    "a fragment": (head("/#x", "a.example"), Reason.MALFORMED_REQUEST),
    "an authority": (head("b.example:443", "a.example", method="CONNECT"), Reason.MALFORMED_REQUEST),
}


@pytest.mark.parametrize(("request_", "expected"), IN_A_TUNNEL.values(), ids=IN_A_TUNNEL)
def test_a_request_inside_a_tunnel(request_: RequestHead, expected: tuple[str, str, bool] | Reason) -> None:
    assert asked(request_, TUNNEL) == expected


def test_the_destination_of_a_tunnel_stays_whatever_host_says() -> None:
    found = read_target(head("/", "b.example"), TUNNEL)
    assert isinstance(found, Asked)
    assert (found.request.host, found.request.authority) == ("a.example", "b.example")


TRANSPARENT: dict[str, tuple[RequestHead, tuple[str, str, bool] | Reason]] = {
    "a path": (head("/x", "a.example"), ("a.example:80", "/x", False)),
    "the port in Host": (head("/x", "a.example:80"), ("a.example:80", "/x", False)),
    "a URI as Host says": (head("http://a.example/x", "a.example"), ("a.example:80", "/x", False)),
    "an address as Host": (head("/", "192.0.2.9"), ("192.0.2.9:80", "/", False)),
    "HTTP/1.0 without Host is for the address": (head("/", minor=0), ("192.0.2.1:80", "/", False)),
    "another port in Host": (head("/", "a.example:8080"), Reason.MALFORMED_REQUEST),
    "a URI of another host": (head("http://b.example/", "a.example"), Reason.HOST_MISMATCH),
    "a URI of another port": (head("http://a.example:81/", "a.example"), Reason.HOST_MISMATCH),
    "no Host": (head("/"), Reason.MALFORMED_REQUEST),
}


@pytest.mark.parametrize(("request_", "expected"), TRANSPARENT.values(), ids=TRANSPARENT)
def test_a_request_of_a_transparent_client(request_: RequestHead, expected: tuple[str, str, bool] | Reason) -> None:
    assert asked(request_, ORIGINAL) == expected


def test_the_address_a_transparent_client_dialled_is_one_more_claim() -> None:
    found = read_target(head("/", "a.example"), ORIGINAL)
    assert isinstance(found, Asked)
    assert found.request.original == ip_address("192.0.2.1")


CONNECTS: dict[str, tuple[RequestHead, tuple[str, int] | Reason]] = {
    "a name": (head("a.example:443", "a.example:443"), ("a.example", 443)),
    "a name in capitals": (head("A.example.:443", "a.EXAMPLE"), ("a.example", 443)),
    "without Host": (head("a.example:443"), Reason.MALFORMED_REQUEST),
    "without Host in HTTP/1.0": (head("a.example:443", minor=0), ("a.example", 443)),
    "an address": (head("127.1:443", "127.0.0.1:443"), ("127.0.0.1", 443)),
    "IPv6": (head("[::1]:443", "[::1]"), ("::1", 443)),
    "another host in Host": (head("a.example:443", "b.example:443"), Reason.HOST_MISMATCH),
    "another port in Host": (head("a.example:443", "a.example:80"), Reason.HOST_MISMATCH),
    "two Hosts": (head("a.example:443", "a.example", "a.example"), Reason.MALFORMED_REQUEST),
    "a malformed Host": (head("a.example:443", "a..example"), Reason.MALFORMED_HOST),
    "no port": (head("a.example"), Reason.MALFORMED_HOST),
    "an empty port": (head("a.example:"), Reason.MALFORMED_HOST),
    "port 0": (head("a.example:0"), Reason.MALFORMED_HOST),
    "a URI": (head("http://a.example:443/"), Reason.MALFORMED_HOST),
    "a path": (head("/"), Reason.MALFORMED_HOST),
    "user information": (head("x@a.example:443"), Reason.MALFORMED_HOST),
    "bare IPv6": (head("::1:443"), Reason.MALFORMED_HOST),
}


@pytest.mark.parametrize(("request_", "expected"), CONNECTS.values(), ids=CONNECTS)
def test_the_destination_of_connect(request_: RequestHead, expected: tuple[str, int] | Reason) -> None:
    found = read_connect(request_)
    if isinstance(found, NotUnderstood):
        assert found.reason is expected
    else:
        assert (str(found[0]), found[1]) == expected


@pytest.mark.parametrize("field", [b"Content-Length", b"Transfer-Encoding"])
def test_connect_has_no_body(field: bytes) -> None:
    request = head("a.example:443")
    request.headers.append((field, b"5"))
    found = read_connect(request)
    assert isinstance(found, NotUnderstood)
    assert found.reason is Reason.MALFORMED_REQUEST


fragments = ["http", "https", "://", "/", "?", "#", ":", "@", "a.example", "b.example", "80", "[::1]", "\\", "%2f", "*"]
targets = st.one_of(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30),
    st.lists(st.sampled_from(fragments), min_size=1, max_size=8).map("".join),
)


@given(targets, st.binary(max_size=20) | targets.map(str.encode), st.sampled_from([PROXY, TUNNEL, ORIGINAL]))
def test_whatever_is_asked_is_for_a_host_that_was_claimed(target: str, host: bytes, way: Target) -> None:
    found = read_target(head(target, host), way)
    if isinstance(found, NotUnderstood):
        return
    assert found.path.startswith("/") or found.path == "*"
    assert "#" not in found.path
    request = found.request
    if way is TUNNEL:
        assert (request.host, request.port) == (TUNNEL.host, TUNNEL.port)
    elif way is ORIGINAL:
        assert request.host == request.authority
        assert (request.original, request.port) == (ORIGINAL.address, ORIGINAL.port)


@given(targets)
def test_any_connect_target_is_a_destination_or_refused(target: str) -> None:
    found = read_connect(head(target))
    if not isinstance(found, NotUnderstood):
        assert read_connect(head(format_authority(*found))) == found
