"""Why something was allowed, refused or failed: spelled once.

A member's value is the metric label, the field in the access log, the `x-egress-reason` header and the anchor in
`docs/reasons.md`. What a client is told with it stands in `ANSWERS`: the HTTP status, Envoy's response flag and the
proxy error type of RFC 9209.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    ALLOWED = "allowed"

    # The rules say no.
    NO_RULE = "no_rule"
    PORT_NOT_ALLOWED = "port_not_allowed"
    PROTOCOL_NOT_ALLOWED = "protocol_not_allowed"
    DENIED_BY_RULE = "denied_by_rule"
    HTTP2_NOT_SUPPORTED = "http2_not_supported"
    UPGRADE_NOT_ALLOWED = "upgrade_not_allowed"
    ECH_DENIED = "ech_denied"
    MODE_NOT_SUPPORTED = "mode_not_supported"

    # The client contradicts itself, or does not say enough.
    SNI_MISSING = "sni_missing"
    SNI_MALFORMED = "sni_malformed"
    SNI_MISMATCH = "sni_mismatch"
    HOST_MISMATCH = "host_mismatch"
    ADDRESS_MISMATCH = "address_mismatch"
    CONNECTION_CHANGED_HOST = "connection_changed_host"
    PROTOCOL_UNKNOWN = "protocol_unknown"
    MALFORMED_HOST = "malformed_host"
    MALFORMED_REQUEST = "malformed_request"
    MALFORMED_HELLO = "malformed_hello"
    HEADERS_TOO_LARGE = "headers_too_large"
    HELLO_TOO_LARGE = "hello_too_large"
    CLIENT_TIMEOUT = "client_timeout"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    RATE_LIMITED = "rate_limited"
    LABEL_TOO_LONG = "label_too_long"
    PROXY_AUTHENTICATION_REQUIRED = "proxy_authentication_required"

    # The destination is not one that may be dialled.
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    OWN_ADDRESS = "own_address"
    NAME_NOT_RESOLVED = "name_not_resolved"

    # It was allowed, and then failed.
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    UPSTREAM_TLS_FAILED = "upstream_tls_failed"
    UPSTREAM_MALFORMED = "upstream_malformed"
    UPSTREAM_CLOSED = "upstream_closed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    CLIENT_CLOSED = "client_closed"

    INTERNAL_ERROR = "internal_error"
    NOT_READY = "not_ready"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a refusal for one reason looks like from outside."""

    status: int
    """HTTP status code."""
    flag: str
    """Envoy response flag, as in its access log (`-`: none)."""
    proxy_error: str
    """Proxy error type of RFC 9209, section 2.3."""
    sentence: str
    """What was refused and why, for people; no client text in it."""


_DENIED = "http_request_denied"

ANSWERS: dict[Reason, Answer] = {
    Reason.ALLOWED: Answer(200, "-", "", "allowed"),
    Reason.NO_RULE: Answer(403, "NR", _DENIED, "no egress rule allows this host"),
    Reason.PORT_NOT_ALLOWED: Answer(403, "NR", _DENIED, "an egress rule allows this host, but not this port"),
    Reason.PROTOCOL_NOT_ALLOWED: Answer(
        403, "NR", _DENIED, "an egress rule allows this host and port, but another protocol"
    ),
    Reason.DENIED_BY_RULE: Answer(403, "NR", _DENIED, "an egress rule denies this host and port"),
    Reason.HTTP2_NOT_SUPPORTED: Answer(
        403, "NR", _DENIED, "HTTP/2 without TLS from the client is not supported yet; use HTTP/1.1"
    ),
    Reason.UPGRADE_NOT_ALLOWED: Answer(403, "NR", _DENIED, "a connection can only be upgraded to websocket"),
    Reason.ECH_DENIED: Answer(403, "NR", _DENIED, "encrypted client hello is not allowed here"),
    Reason.MODE_NOT_SUPPORTED: Answer(403, "NR", _DENIED, "this way into the gateway is not supported"),
    Reason.SNI_MISSING: Answer(403, "NR", _DENIED, "the TLS client hello names no host"),
    Reason.SNI_MALFORMED: Answer(400, "DPE", _DENIED, "the TLS client hello does not name exactly one host"),
    Reason.SNI_MISMATCH: Answer(
        421, "NR", _DENIED, "the TLS client hello names another host than the one the connection was opened to"
    ),
    Reason.HOST_MISMATCH: Answer(
        421, "NR", _DENIED, "the Host header names another host than the one the request is for"
    ),
    Reason.ADDRESS_MISMATCH: Answer(
        403, "NR", _DENIED, "the address dialled is not one of the addresses of the host named"
    ),
    Reason.CONNECTION_CHANGED_HOST: Answer(
        421, "NR", _DENIED, "this tunnel was opened to another host than the one the request is for"
    ),
    Reason.PROTOCOL_UNKNOWN: Answer(
        403, "NR", _DENIED, "the first bytes are neither TLS nor HTTP/1.1, and no tcp rule covers this host and port"
    ),
    Reason.MALFORMED_HOST: Answer(400, "DPE", "http_request_error", "the host is not well-formed"),
    Reason.MALFORMED_REQUEST: Answer(400, "DPE", "http_request_error", "the request is not well-formed"),
    Reason.MALFORMED_HELLO: Answer(400, "DPE", "http_request_error", "the TLS client hello is not well-formed"),
    Reason.HEADERS_TOO_LARGE: Answer(431, "DPE", "http_request_error", "the request header section is too large"),
    Reason.HELLO_TOO_LARGE: Answer(400, "DPE", "http_request_error", "the TLS client hello is too large"),
    Reason.CLIENT_TIMEOUT: Answer(408, "DC", "http_request_error", "the client took too long"),
    Reason.TOO_MANY_CONNECTIONS: Answer(
        503, "RL", "connection_limit_reached", "this client has too many connections open"
    ),
    Reason.RATE_LIMITED: Answer(429, "RL", _DENIED, "this client asks too often"),
    Reason.LABEL_TOO_LONG: Answer(
        403, "NR", _DENIED, "a wildcard rule allows this host, but not for labels of this length"
    ),
    Reason.PROXY_AUTHENTICATION_REQUIRED: Answer(407, "NR", _DENIED, "the gateway wants a user name and a password"),
    Reason.ADDRESS_NOT_ALLOWED: Answer(
        403, "NR", "destination_ip_prohibited", "the host has no address that may be reached"
    ),
    Reason.OWN_ADDRESS: Answer(403, "NR", "destination_ip_prohibited", "the destination is the gateway itself"),
    Reason.NAME_NOT_RESOLVED: Answer(502, "DF", "dns_error", "the name of the host did not resolve"),
    Reason.CONNECT_FAILED: Answer(502, "UF", "destination_unavailable", "no connection to the host could be made"),
    Reason.CONNECT_TIMEOUT: Answer(504, "UF", "connection_timeout", "connecting to the host took too long"),
    Reason.UPSTREAM_TLS_FAILED: Answer(
        502, "UF", "tls_protocol_error", "TLS to the host could not be established or verified"
    ),
    Reason.UPSTREAM_MALFORMED: Answer(
        502, "UC", "http_protocol_error", "the host sent a response that is not well-formed"
    ),
    Reason.UPSTREAM_CLOSED: Answer(
        502, "UC", "connection_terminated", "the host closed the connection before it had answered"
    ),
    Reason.UPSTREAM_TIMEOUT: Answer(504, "UT", "connection_read_timeout", "the host took too long to answer"),
    Reason.CLIENT_CLOSED: Answer(499, "DC", "http_request_error", "the client closed the connection"),
    Reason.NOT_READY: Answer(
        503, "NR", "proxy_internal_error", "the gateway is not ready, or not any more, so it refuses everything"
    ),
    Reason.INTERNAL_ERROR: Answer(
        503, "NR", "proxy_internal_error", "the gateway could not decide, so it refused; its log says why"
    ),
}
