"""The fields of both API versions, in one place: `shape` reads by these tables, `schema` publishes them."""

from __future__ import annotations

from egress_gateway.policy.rule import AddressCheck, Protocol, RuleAction, TlsMode

from .shape import Field, Table, Type

ISTIO = "config.istio.io/v1alpha2"
OURS = "egress.mitmproxy/v1"
EGRESS_RULE = "EgressRule"

PROTOCOLS = tuple(protocol.value for protocol in Protocol)
PROTOCOL_LIST = ",".join(PROTOCOLS).upper()
ONLY_THESE_PROTOCOLS = f"egress rule support is available only for the following protocols: {PROTOCOL_LIST}"

_IGNORED = "Written by Kubernetes; ignored."
METADATA = Table(
    "metadata",
    {
        "name": Field(Type.STRING, "Unique in its namespace: lower-case letters, digits and -, at most 63 characters."),
        "namespace": Field(Type.STRING, "Defaults to `default`."),
        "labels": Field(Type.STRINGS, "For your own use."),
        "annotations": Field(Type.STRINGS, "For your own use."),
        "creationTimestamp": Field(Type.ANYTHING, _IGNORED),
        "generation": Field(Type.ANYTHING, _IGNORED),
        "resourceVersion": Field(Type.ANYTHING, _IGNORED),
        "selfLink": Field(Type.ANYTHING, _IGNORED),
        "uid": Field(Type.ANYTHING, _IGNORED),
    },
    required=("name",),
)

_PORT_NUMBER = "port number {value} must be in the range {least}..{most}"
_PORT = Field(
    Type.INTEGER,
    "The port that the application speaks to; unique in the rule.",
    least=1,
    most=65535,
    range_message=_PORT_NUMBER,
)
_PROTOCOL_MEANING = (
    "What the application speaks. http, http2, grpc: plain HTTP, forwarded as it is. https: plain HTTP to this port "
    "leaves in verified TLS, TLS passes undecrypted. tcp, mongo: any bytes."
)
_SERVICE = "A domain, a wildcard (`*.example.com`, `*`), an IPv4 address, or an IPv4 CIDR block (tcp and mongo only)."

_NOT_IN_ISTIO = "destination of egress rule must not have {} field (write the destination as service)"
ISTIO_DESTINATION = Table(
    "istioDestination",
    {"service": Field(Type.STRING, _SERVICE)},
    required=("service",),
    refused={
        **{name: _NOT_IN_ISTIO.format(name) for name in ("name", "namespace", "domain", "labels")},
        **dict.fromkeys(
            ("services", "allowPrivate", "check"), f"is a field of {OURS} (write apiVersion: {OURS} to use it)"
        ),
    },
)
ISTIO_PORT = Table(
    "istioPort",
    {
        "port": _PORT,
        "protocol": Field(Type.STRING, _PROTOCOL_MEANING, choices=PROTOCOLS, choices_message=ONLY_THESE_PROTOCOLS),
    },
    required=("port", "protocol"),
    refused=dict.fromkeys(("targetPort", "tls"), f"is a field of {OURS} (write apiVersion: {OURS} to use it)"),
)
_PROXY = "Accepted for Istio's sake; true is refused."
ISTIO_SPEC = Table(
    "istioSpec",
    {
        "destination": Field(Type.OBJECT, "Where the rule lets traffic go.", table=ISTIO_DESTINATION),
        "ports": Field(Type.LIST, "On which ports, at least one.", table=ISTIO_PORT),
        "use_egress_proxy": Field(Type.BOOLEAN, _PROXY),
        "useEgressProxy": Field(Type.BOOLEAN, _PROXY),
    },
    required=("destination", "ports"),
    refused=dict.fromkeys(
        ("action", "allowBroadWildcard", "tls"), f"is a field of {OURS} (write apiVersion: {OURS} to use it)"
    ),
)

_TLS_MODE = Field(
    Type.STRING,
    "originate: plain HTTP from the application leaves in verified TLS, and nothing else is let through. "
    "passthrough: TLS passes undecrypted when its SNI is allowed, and nothing else.",
    choices=tuple(mode.value for mode in TlsMode),
    not_yet=("inspect",),
)
_TLS_NOT_YET = frozenset(
    {
        "caCertificates",
        "clientCertificate",
        "privateKey",
        "sni",
        "subjectAltNames",
        "minVersion",
        "maxVersion",
        "ech",
    }
)
OUR_TLS = Table("tls", {"mode": _TLS_MODE}, not_yet=_TLS_NOT_YET)
OUR_DESTINATION = Table(
    "destination",
    {
        "service": Field(Type.STRING, "One destination; the same as a list of one in `services`."),
        "services": Field(
            Type.LIST,
            "Domains, wildcards (`*.example.com`, `*`), IPv4 and IPv6 addresses and CIDR blocks.",
            items=Field(Type.STRING, "One destination."),
        ),
        "allowPrivate": Field(
            Type.BOOLEAN, "true: this rule may reach private, loopback and link-local addresses. Defaults to false."
        ),
        "check": Field(
            Type.STRING,
            "What happens in transparent modes where the address that the client dialled is not one of the name's. "
            "enforce: refused. redial: the name's own address is dialled instead. audit: the same, counted and "
            "logged. Defaults to enforce.",
            choices=tuple(check.value for check in AddressCheck),
        ),
    },
    refused=dict.fromkeys(("name", "domain"), "is not a field of a destination (write the destination in services)"),
)
OUR_PORT = Table(
    "port",
    {
        "port": _PORT,
        "protocol": Field(
            Type.STRING,
            _PROTOCOL_MEANING,
            choices=PROTOCOLS,
            not_yet=("tls", "udp", "quic"),
            choices_message=ONLY_THESE_PROTOCOLS,
        ),
        "targetPort": Field(
            Type.INTEGER,
            "The port of the destination; defaults to `port`.",
            least=1,
            most=65535,
            range_message=_PORT_NUMBER,
        ),
        "tls": Field(Type.OBJECT, "How TLS is used on this port.", table=OUR_TLS),
    },
    required=("port", "protocol"),
)
OUR_SPEC = Table(
    "spec",
    {
        "action": Field(
            Type.STRING,
            "Defaults to allow. A deny beats every allow that matches as specifically or less.",
            choices=tuple(action.value for action in RuleAction),
            not_yet=("audit",),
        ),
        "destination": Field(Type.OBJECT, "Where the rule lets traffic go.", table=OUR_DESTINATION),
        "ports": Field(Type.LIST, "On which ports, at least one.", table=OUR_PORT),
        "tls": Field(Type.OBJECT, "How TLS is used on the ports that do not say it themselves.", table=OUR_TLS),
        "allowBroadWildcard": Field(
            Type.BOOLEAN, "true: a wildcard over a public suffix (`*`, `*.com`, `*.github.io`) is meant."
        ),
    },
    required=("destination", "ports"),
    not_yet=frozenset({"from", "http", "quota", "authorize", "expires"}),
)


def _object(name: str, spec: Table, *, version_required: bool) -> Table:
    return Table(
        name,
        {
            "apiVersion": Field(Type.STRING, "Which of the two versions of the object this is."),
            "kind": Field(Type.STRING, "EgressRule."),
            "metadata": Field(Type.OBJECT, "Name and namespace.", table=METADATA),
            "spec": Field(Type.OBJECT, "What the rule allows.", table=spec),
        },
        required=(("apiVersion",) if version_required else ()) + ("kind", "metadata", "spec"),
    )


OBJECTS = {
    ISTIO: _object("istioEgressRule", ISTIO_SPEC, version_required=False),
    OURS: _object("egressRule", OUR_SPEC, version_required=True),
}
KINDS_NOT_YET = frozenset({"EgressSource"})
