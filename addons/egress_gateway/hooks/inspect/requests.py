"""From a request to its facts and its verdict. Pure but for asking the gate.

The same `read_target` reads the claims of a request on both data paths; HTTP/2 is brought into the form of an HTTP/1
head for it, where `:authority` stands in place of Host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mitmproxy import http

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.policy.hostname import Address, Hostname, MalformedHost, parse_authority, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Spoken
from egress_gateway.policy.verdict import Treatment, Verdict
from egress_gateway.relay.http1 import Malformed, RequestHead, ResponseHead, parse_fields, parse_request
from egress_gateway.relay.target import Asked, NotUnderstood, ProxyTarget, Target, TunnelTarget, read_target
from egress_gateway.relay.websocket import asks_for_websocket, why_not_accepted


@dataclass(frozen=True, slots=True)
class Scene:
    """Where requests come from."""

    target: Target
    sni: Hostname | None = None
    """Set inside TLS that is decrypted: the judged server name."""
    original: Address | None = None
    """Inside TLS in transparent modes: the address that the client dialled."""


def read_facts(head: RequestHead, scene: Scene) -> Asked | NotUnderstood:
    """What a request asks for, by all its claims."""
    asked = read_target(head, scene.target)
    if isinstance(asked, NotUnderstood) or scene.sni is None:
        return asked
    request = replace(asked.request, spoken=Spoken.TLS, sni=scene.sni, original=scene.original)
    return asked._replace(request=request)


def decide_request(
    gate: Gatekeeper, asked: Asked, head: RequestHead, *, has_body: bool = False
) -> tuple[Verdict, bool]:
    """The verdict on an HTTP request, and whether it is a WebSocket handshake."""
    verdict = gate.decide(asked.request, "http")
    if not verdict.allowed:
        return verdict, False
    websocket = asks_for_websocket(head) and not has_body
    if (head.values(b"upgrade") and not websocket) or head.method == "CONNECT":
        return gate.refused(Reason.UPGRADE_NOT_ALLOWED, "http", verdict.rule), False
    if not _fits(verdict.treatment, asked):
        return gate.refused(Reason.PROTOCOL_NOT_ALLOWED, "http", verdict.rule), False
    return verdict, websocket


def _fits(treatment: Treatment, asked: Asked) -> bool:
    if asked.request.spoken is Spoken.TLS:
        return treatment is Treatment.PASSTHROUGH
    if treatment is Treatment.ORIGINATE:
        return True
    return treatment is Treatment.FORWARD and not asked.wants_tls


def over_tls(treatment: Treatment) -> bool:
    """Whether mitmproxy has to open TLS to the destination of a request."""
    return treatment is not Treatment.FORWARD


def upgrade_problem(head: RequestHead, response: http.Response, *, has_body: bool) -> str:
    """Why a 101 may not turn the connection into a WebSocket; empty where it may, or is no 101."""
    if response.status_code != 101:
        return ""
    if has_body:
        return "101 to a request that did not ask for an upgrade"
    fields = list(response.headers.fields)
    return why_not_accepted(head, ResponseHead(minor=1, headers=fields, status=101, phrase=b""))


# --- requests that mitmproxy has parsed ---

Place = tuple[str, int, str, str, bytes, bytes]


def place(request: http.Request) -> Place:
    """Everything in `request` that says where it goes, to see whether somebody has changed it."""
    hosts = b"\n".join(value for name, value in request.headers.fields if name.lower() == b"host")
    return request.host, request.port, request.scheme, request.authority, request.data.path, hosts


def is_one_request(request: http.Request) -> bool:
    """Whether method, path and header, which others may have changed, stay on the wire what they are.

    A line end in one of them would make another header, or another request, of what follows it.
    """
    method, path = request.data.method, request.data.path
    texts = (method, path, *(text for field in request.headers.fields for text in field))
    if any(end in text for text in texts for end in (b"\r", b"\n")):
        return False
    try:
        parse_request(b"%s %s HTTP/1.1\r\n\r\n" % (method, path))
    except Malformed:
        return False
    return True


NOT_ONE_REQUEST = NotUnderstood(Reason.MALFORMED_REQUEST, "the method, the path or a header is not well-formed")


def head_of_http2(request: http.Request) -> RequestHead | NotUnderstood:
    """An HTTP/2 request as an HTTP/1 head: one Host, which is what all of `:authority` and `host` say."""
    hosts = [value for name, value in request.headers.fields if name.lower() == b"host"]
    claims = ([request.data.authority] if request.data.authority else []) + hosts
    if not claims:
        return NotUnderstood(Reason.MALFORMED_REQUEST, "neither :authority nor host in an HTTP/2 request")
    try:
        named = {_authority(claim) for claim in claims}
    except MalformedHost as error:
        return NotUnderstood(Reason.MALFORMED_HOST, f":authority or host: {error}")
    if len(named) > 1:
        return NotUnderstood(Reason.HOST_MISMATCH, ":authority and host differ")
    return _head(request, [(b"host", claims[0])])


def _authority(claim: bytes) -> tuple[object, int]:
    return parse_authority(claim.decode("utf-8", "surrogateescape"), 443)


def _head(request: http.Request, host: list[tuple[bytes, bytes]]) -> RequestHead | NotUnderstood:
    if not is_one_request(request):
        return NOT_ONE_REQUEST
    others = [(name, value) for name, value in request.headers.fields if name.lower() != b"host"]
    try:
        # Validated again, since what another addon has put there goes out on the wire.
        headers = parse_fields(b"".join(b"%s: %s\r\n" % field for field in host + others) + b"\r\n", 0)
        target = request.data.path.decode("ascii")
    except (Malformed, UnicodeDecodeError):
        return NotUnderstood(Reason.MALFORMED_REQUEST, "a header or the path is not well-formed")
    return RequestHead(minor=1, headers=headers, method=request.method, target=target)


def facts_of_changed(request: http.Request) -> tuple[RequestHead, Asked] | NotUnderstood:
    """The facts of a request that another addon, a replay or a person has pointed somewhere: as a request to a proxy.

    Its Host header must fit the new destination like any other.
    """
    hosts = [(name, value) for name, value in request.headers.fields if name.lower() == b"host"]
    if len(hosts) > 1:
        return NotUnderstood(Reason.MALFORMED_REQUEST, "more than one Host header")
    if request.is_http2 and request.data.authority:
        hosts = [(b"host", request.data.authority)]
    head = _head(request, hosts)
    if isinstance(head, NotUnderstood):
        return head
    try:
        host = parse_host(request.host)
    except MalformedHost as error:
        return NotUnderstood(Reason.MALFORMED_HOST, f"destination: {error}")
    old = RequestHead(0, head.section, head.method, head.target)  # which needs no Host header
    asked = read_target(head if hosts else old, TunnelTarget(host, request.port))
    if isinstance(asked, NotUnderstood):
        return asked
    return head, asked._replace(wants_tls=request.scheme == "https")


PROXY = Scene(ProxyTarget())
