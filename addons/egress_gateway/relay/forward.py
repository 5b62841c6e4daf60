"""Which header fields go on to the next hop, as RFC 9110 (7.6) says. Pure."""

from __future__ import annotations

from .http1 import Framing, Headers, Message, RequestHead, ResponseHead

VIA_NAME = b"egress-gateway"

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"content-length",  # set anew from the framing that was judged
    }
)
# Mesh headers tell the inside of one's network to the outside.
_MESH = frozenset({b"x-forwarded-client-cert", b"x-istio-attributes"})
# What only the gateway may say.
_OURS = frozenset({b"proxy-status", b"x-egress-reason"})
_NEVER_IN_TRAILERS = frozenset(
    {
        b"host",
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"cookie",
        b"set-cookie",
        b"via",
    }
)


def hops_left(head: RequestHead) -> int | None:
    """What Max-Forwards says of a request that heeds it (RFC 9110, 7.6.2), or None: any number."""
    values = head.values(b"max-forwards") if head.method in ("OPTIONS", "TRACE") else []
    return int(values[0]) if len(values) == 1 and values[0].isdigit() and len(values[0]) < 6 else None


def _forwarded(message: Message, also_dropped: frozenset[bytes]) -> Headers:
    dropped = _HOP_BY_HOP | also_dropped
    nominated = message.tokens(b"connection")
    if nominated:
        dropped = dropped.union(nominated)
    return [
        (name, value)
        for name, value in message.headers
        if (lower := name.lower()) not in dropped and not lower.startswith(b"x-envoy-")
    ]


_REQUEST_DROPS = _MESH | {b"host"}


def request_bytes(head: RequestHead, *, method: str, path: str, host: str, framing: Framing, websocket: bool) -> bytes:
    """The head to send to the origin: origin-form, the canonical Host first."""
    fields: Headers = [(b"Host", host.encode("ascii"))]
    fields += _forwarded(head, _REQUEST_DROPS)
    hops = hops_left(head)
    if hops is not None:
        fields = [field for field in fields if field[0].lower() != b"max-forwards"]
        fields.append((b"Max-Forwards", b"%d" % (hops - 1)))
    if b"trailers" in head.tokens(b"te"):
        fields.append((b"TE", b"trailers"))
    fields.append((b"Via", b"1.%d %s" % (head.minor, VIA_NAME)))
    if websocket:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    elif b"trailers" in head.tokens(b"te"):
        fields.append((b"Connection", b"TE"))
    fields += framing_fields(framing)
    if framing.length == 0 and head.values(b"content-length"):
        fields.append((b"Content-Length", b"0"))
    return _head(f"{method} {path} HTTP/1.1".encode("ascii"), fields)


def response_bytes(head: ResponseHead, *, framing: Framing, keep_alive: bool, websocket: bool = False) -> bytes:
    """The head to send to the client."""
    fields = _forwarded(head, _OURS)
    fields.append((b"Via", b"1.%d %s" % (head.minor, VIA_NAME)))
    if websocket:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    elif head.status >= 200:
        fields += framing_fields(framing)
        lengths = head.values(b"content-length")
        if not framing.has_body and lengths and head.status != 204:
            # A response to HEAD, a 304, or an empty body: the length says something without framing anything.
            fields.append((b"Content-Length", lengths[0]))
        if not keep_alive:
            fields.append((b"Connection", b"close"))
    return _head(b"HTTP/1.1 %d %s" % (head.status, head.phrase), fields)


def framing_fields(framing: Framing) -> Headers:
    """The fields that say how a body is framed; none for no body and for one that ends with the connection."""
    if framing.chunked:
        return [(b"Transfer-Encoding", b"chunked")]
    if framing.length:
        return [(b"Content-Length", b"%d" % framing.length)]
    return []


def trailer_fields(trailers: Headers) -> Headers:
    """The trailer fields that may go on (RFC 9110, 6.5.1)."""
    barred = _HOP_BY_HOP | _MESH | _OURS | _NEVER_IN_TRAILERS
    return [
        (name, value)
        for name, value in trailers
        if (lower := name.lower()) not in barred and not lower.startswith(b"x-envoy-")
    ]


def fields_bytes(fields: Headers) -> bytes:
    """Fields as lines, without the empty line after them."""
    return b"".join([b"%s: %s\r\n" % field for field in fields])


def _head(start_line: bytes, fields: Headers) -> bytes:
    return b"%s\r\n%s\r\n" % (start_line, fields_bytes(fields))
