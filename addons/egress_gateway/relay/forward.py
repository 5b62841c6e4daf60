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
_HEED_MAX_FORWARDS = frozenset({"OPTIONS", "TRACE"})


def hops_left(head: RequestHead) -> int | None:
    """What Max-Forwards says of a request that heeds it (RFC 9110, 7.6.2), or None: any number."""
    if head.method not in _HEED_MAX_FORWARDS:
        return None
    values = head.values(b"max-forwards")
    return int(values[0]) if len(values) == 1 and values[0].isdigit() and len(values[0]) < 6 else None


def _forwarded(message: Message, dropped: frozenset[bytes]) -> Headers:
    nominated = message.tokens(b"connection")
    if nominated:
        dropped = dropped.union(nominated)
    gone = {name for name in message.section.by_name if name in dropped or name.startswith(b"x-envoy-")}
    if not gone:
        return list(message.headers)
    return [field for field in message.headers if field[0].lower() not in gone]


_REQUEST_DROPS = _HOP_BY_HOP | _MESH | {b"host"}
_RESPONSE_DROPS = _HOP_BY_HOP | _OURS


def request_bytes(head: RequestHead, *, method: str, path: str, host: str, framing: Framing, websocket: bool) -> bytes:
    """The head to send to the origin: origin-form, the canonical Host first."""
    hops = hops_left(head) if method in _HEED_MAX_FORWARDS else None
    # All that the lines after Host hang on; a section has few of each.
    key = (head.minor, hops, websocket, framing.length, framing.chunked)
    rest = head.section.forwarded.get(key)
    if rest is None:
        rest = head.section.forwarded[key] = _request_fields(head, hops, framing, websocket)
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n".encode("ascii") + rest


def _request_fields(head: RequestHead, hops: int | None, framing: Framing, websocket: bool) -> bytes:
    fields = _forwarded(head, _REQUEST_DROPS)
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
    return fields_bytes(fields) + b"\r\n"


def response_bytes(head: ResponseHead, *, framing: Framing, keep_alive: bool, websocket: bool = False) -> bytes:
    """The head to send to the client."""
    # The status line is not part of it: an origin can say the same fields with any number of phrases.
    status = head.status
    key = (head.minor, status >= 200, status == 204, framing.length, framing.chunked, keep_alive, websocket)
    rest = head.section.forwarded.get(key)
    if rest is None:
        rest = head.section.forwarded[key] = _response_fields(head, framing, keep_alive, websocket)
    return b"HTTP/1.1 %d %s\r\n%s" % (status, head.phrase, rest)


def _response_fields(head: ResponseHead, framing: Framing, keep_alive: bool, websocket: bool) -> bytes:
    fields = _forwarded(head, _RESPONSE_DROPS)
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
    return fields_bytes(fields) + b"\r\n"


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
    return b"".join([name + b": " + value + b"\r\n" for name, value in fields])
