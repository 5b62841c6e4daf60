"""From a request head to the facts of its decision: who is asked for, by which claims. Pure.

Three ways a client can name its destination: an absolute URI to an explicit proxy, a tunnel that was opened to a host,
and, in transparent modes, the Host header of a connection whose address the client chose itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from egress_gateway.policy.hostname import (
    Address,
    Host,
    MalformedHost,
    parse_authority,
    parse_host,
    parse_port,
)
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken

from .http1 import RequestHead

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class ProxyTarget:
    """An explicit proxy: each request names its destination in its URI."""


@dataclass(frozen=True, slots=True)
class TunnelTarget:
    """Inside a tunnel: each request must be for the host that the tunnel was opened to."""

    host: Host
    port: int


@dataclass(frozen=True, slots=True)
class OriginalTarget:
    """Transparent: each request names its host itself, the address is the one the client dialled."""

    address: Address
    port: int


Target = ProxyTarget | TunnelTarget | OriginalTarget


class Asked(NamedTuple):
    """A request that could be understood."""

    request: Request
    path: str
    """Origin-form of the request target."""
    wants_tls: bool = False
    """The URI's scheme was https, so plain HTTP to the destination is out of the question."""


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    reason: Reason
    detail: str


def read_target(head: RequestHead, target: Target) -> Asked | NotUnderstood:
    """What `head` asks for, by all its claims."""
    hosts = head.values(b"host")
    if len(hosts) > 1:
        return NotUnderstood(Reason.MALFORMED_REQUEST, "more than one Host header")
    if not hosts and head.minor == 1:
        return NotUnderstood(Reason.MALFORMED_REQUEST, "no Host header in an HTTP/1.1 request")
    try:
        authority = _host_header(hosts[0]) if hosts else None
    except MalformedHost as error:
        return NotUnderstood(Reason.MALFORMED_HOST, f"Host header: {error}")
    try:
        uri = None if head.target.startswith("/") or not _ABSOLUTE.match(head.target) else _parse_uri(head)
    except MalformedHost as error:
        return NotUnderstood(Reason.MALFORMED_HOST, f"request target: {error}")
    if uri is None and not _is_origin_form(head):
        return NotUnderstood(Reason.MALFORMED_REQUEST, "the request target is neither a path nor an absolute URI")
    return _combine(head, target, uri, authority)


class _Uri(NamedTuple):
    host: Host
    port: int
    path: str
    https: bool


def _combine(
    head: RequestHead, target: Target, uri: _Uri | None, authority: tuple[Host, int | None] | None
) -> Asked | NotUnderstood:
    host_claim, port_claim = authority or (None, None)
    request = _request(target, uri, host_claim)
    if isinstance(request, NotUnderstood):
        return request
    if port_claim is not None and port_claim != request.port:
        return NotUnderstood(Reason.MALFORMED_REQUEST, "the port in the Host header is not the one asked for")
    if uri is None:
        return Asked(request, head.target)
    return Asked(request, uri.path, uri.https)


def _request(target: Target, uri: _Uri | None, host_claim: Host | None) -> Request | NotUnderstood:
    if isinstance(target, ProxyTarget):
        if uri is None:
            return NotUnderstood(
                Reason.MALFORMED_REQUEST,
                "a request to a proxy needs an absolute URI (http://host/path); this one has a path only",
            )
        return Request(uri.host, uri.port, Spoken.HTTP, authority=host_claim)
    if isinstance(target, TunnelTarget):
        if uri is not None and (uri.host, uri.port) != (target.host, target.port):
            return NotUnderstood(
                Reason.CONNECTION_CHANGED_HOST, "an absolute URI for another destination than the tunnel's"
            )
        return Request(target.host, target.port, Spoken.HTTP, authority=host_claim)
    named = host_claim if host_claim is not None else target.address
    if uri is not None and (uri.host, uri.port) != (named, target.port):
        return NotUnderstood(Reason.HOST_MISMATCH, "the absolute URI and the Host header differ")
    return Request(named, target.port, Spoken.HTTP, authority=host_claim, original=target.address)


@lru_cache(maxsize=4096)  # what raises is not kept, so no entry is longer than a host can be
def _host_header(value: bytes) -> tuple[Host, int | None]:
    text = value.decode("utf-8", "surrogateescape")
    if not text:
        raise MalformedHost("empty")
    host_text, separator, port_text = text, "", ""
    if not text.endswith("]") and ":" in text:
        host_text, separator, port_text = text.rpartition(":")
    if ":" in host_text and not host_text.startswith("["):
        raise MalformedHost("more than one colon; an IPv6 address stands in brackets")
    return parse_host(host_text), parse_port(port_text) if separator and port_text else None


def _parse_uri(head: RequestHead) -> _Uri:
    scheme, _, rest = head.target.partition("://")
    scheme = scheme.lower()
    if scheme not in ("http", "https"):
        raise MalformedHost("only http:// and https:// URIs can be asked for")
    if "#" in rest:
        raise MalformedHost("a fragment is not part of a request")
    slash, query = rest.find("/"), rest.find("?")
    end = slash if query < 0 or 0 <= slash < query else query
    authority, path = (rest, "") if end < 0 else (rest[:end], rest[end:])
    host, port = parse_authority(authority, 443 if scheme == "https" else 80)
    if not path:
        # RFC 9112, 3.2.4: OPTIONS of an authority without a path asks about the server as a whole.
        path = "*" if head.method == "OPTIONS" else "/"
    elif path.startswith("?"):
        path = f"/{path}"
    return _Uri(host, port, path, https=scheme == "https")


def _is_origin_form(head: RequestHead) -> bool:
    return (head.target.startswith("/") and "#" not in head.target) or (head.target == "*" and head.method == "OPTIONS")


def read_connect(head: RequestHead) -> tuple[Host, int] | NotUnderstood:
    """The destination of a CONNECT request (RFC 9110, 9.3.6)."""
    if head.values(b"content-length") or head.values(b"transfer-encoding"):
        return NotUnderstood(Reason.MALFORMED_REQUEST, "a CONNECT request has no body")
    hosts = head.values(b"host")
    if len(hosts) > 1:
        return NotUnderstood(Reason.MALFORMED_REQUEST, "more than one Host header")
    try:
        destination = parse_authority(head.target)
    except MalformedHost as error:
        return NotUnderstood(Reason.MALFORMED_HOST, f"CONNECT target: {error}")
    if not hosts and head.minor == 1:
        return NotUnderstood(Reason.MALFORMED_REQUEST, "no Host header in an HTTP/1.1 request")
    try:
        claimed = _host_header(hosts[0]) if hosts else None
    except MalformedHost as error:
        return NotUnderstood(Reason.MALFORMED_HOST, f"Host header: {error}")
    if claimed is not None and (claimed[0] != destination[0] or claimed[1] not in (None, destination[1])):
        return NotUnderstood(Reason.HOST_MISMATCH, "the Host header and the CONNECT target differ")
    return destination
