"""What would have to be different: the rule nearest to a refused request, the smallest one to allow it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address

from .addresses import REACHABLE_WITH_ALLOW_PRIVATE, AddressClass, classify
from .hostname import Host, Hostname
from .reason import Reason
from .request import Request, Spoken
from .rule import EgressRule
from .ruleset import RuleSet
from .verdict import Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """For people: both texts are empty where there is nothing useful to say."""

    nearest: EgressRule | None
    hint: str
    """One sentence: what the nearest rule lacks."""
    smallest_rule: str
    """A YAML document that would allow the request, ready for `egressctl create -f -`."""


def explain(ruleset: RuleSet, request: Request, verdict: Verdict) -> Explanation:
    """Explains the refusal `verdict` of `request`."""
    nearest, hint = _nearest(ruleset, request, verdict)
    return Explanation(nearest, hint, _smallest_rule(request, verdict, nearest))


def _nearest(ruleset: RuleSet, request: Request, verdict: Verdict) -> tuple[EgressRule | None, str]:
    host, port = request.host, request.port
    if verdict.reason is Reason.PORT_NOT_ALLOWED:
        slots = {number: slot for number, slot in ruleset.ports_of(host).items() if slot.allows}
        if not slots:
            return None, ""  # the rules have changed since the verdict
        rule = next(iter(slots.values())).allowed_by
        numbers = ", ".join(str(number) for number in sorted(slots)[:8])
        return rule, f"the port is what is missing: {host} is allowed on {numbers}, not on {port}"
    if verdict.reason is Reason.PROTOCOL_NOT_ALLOWED and verdict.rule:
        spoken = "TLS" if request.spoken is Spoken.TLS else "plain HTTP"
        return verdict.rule, f"the protocol is what is missing: the rule does not admit {spoken} on port {port}"
    if verdict.reason is Reason.NO_RULE:
        below = ruleset.find_below(host, port)
        if below is not None:
            hint = f"a wildcard *.{host} does not cover {host} itself; a rule must name it"
            return below, hint + _perhaps_private(below, host)
        rule = ruleset.neighbour(host)
        if rule is None:
            return None, ""
        return rule, f"{rule.key} allows {_services(rule)}, not {host}" + _perhaps_private(rule, host)
    return verdict.rule, ""


def _perhaps_private(rule: EgressRule, host: Host) -> str:
    """Another host's addresses say nothing certain of this one's, so the smallest rule stays small and this is said."""
    if not rule.allow_private:
        return ""
    return f"; {rule.key} has allowPrivate: true, which {host} needs as well unless its addresses are public"


def _services(rule: EgressRule) -> str:
    texts = [str(destination) for destination in rule.destinations]
    return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")


_A_RULE_WOULD_HELP = frozenset(
    {Reason.NO_RULE, Reason.PORT_NOT_ALLOWED, Reason.PROTOCOL_UNKNOWN, Reason.ADDRESS_NOT_ALLOWED}
)
# Metadata as well: the smallest rule names the address itself.
_MAY_BE_REACHED = REACHABLE_WITH_ALLOW_PRIVATE | {AddressClass.PUBLIC, AddressClass.METADATA}


def needs_private(request: Request, verdict: Verdict, nearest: EgressRule | None) -> bool:
    """Whether a rule for `request` must have `allowPrivate` to be of use, as far as that can be told unresolved."""
    host = request.host
    if verdict.reason is Reason.ADDRESS_NOT_ALLOWED:
        return True
    if not isinstance(host, str):
        return classify(host) is not AddressClass.PUBLIC
    if _is_localhost(host):
        return True
    # With any other reason the nearest rule speaks of this very host: its author knew where it lives.
    return verdict.reason is not Reason.NO_RULE and nearest is not None and nearest.allow_private


def _is_localhost(name: Hostname) -> bool:
    """RFC 6761, 6.3: these names are loopback addresses to every resolver."""
    return name == "localhost" or name.endswith(".localhost")


def _smallest_rule(request: Request, verdict: Verdict, nearest: EgressRule | None) -> str:
    if verdict.reason not in _A_RULE_WOULD_HELP:
        return ""
    kind = AddressClass.PUBLIC if isinstance(request.host, str) else classify(request.host)
    if kind not in _MAY_BE_REACHED:
        return ""
    protocol = "tcp" if verdict.reason is Reason.PROTOCOL_UNKNOWN else _usual_protocol(request)
    private = needs_private(request, verdict, nearest)
    return smallest_rule(request.host, request.port, protocol, allow_private=private)


def _usual_protocol(request: Request) -> str:
    nameless_tls = request.spoken is Spoken.TLS and request.sni is None
    if nameless_tls or request.spoken in (Spoken.OTHER, Spoken.HTTP2):
        return "tcp"
    if request.spoken is Spoken.TLS or request.port == 443:
        return "https"
    return "http" if request.spoken is Spoken.HTTP or request.port == 80 else "https"


def rule_name(host: Host) -> str:
    """A name for a rule that allows `host`: a DNS-1123 label that still tells which host it is."""
    text = str(host)
    if isinstance(host, IPv6Address):
        # The 0 keeps the dashes of a leading or trailing :: inside the label.
        text = "ipv6-" + ("0" if text.startswith(":") else "") + text + ("0" if text.endswith(":") else "")
    name = "allow-" + text.replace(".", "-").replace(":", "-").replace("_", "-").strip("-")
    return name[:63].rstrip("-")


def smallest_rule(host: Host, port: int, protocol: str, *, allow_private: bool = False, name: str | None = None) -> str:
    """A rule that allows `protocol` to `host` and `port` and nothing else, as YAML, named `name` or `rule_name`."""
    ours = allow_private or isinstance(host, IPv6Address)
    lines = [
        f"apiVersion: {'egress.mitmproxy/v1' if ours else 'config.istio.io/v1alpha2'}",
        "kind: EgressRule",
        f"metadata: {{name: {name or rule_name(host)}}}",
        "spec:",
    ]
    if ours:
        lines += ["  destination:", f'    services: ["{host}"]']
        lines += ["    allowPrivate: true"] if allow_private else []
    else:
        lines += [f'  destination: {{service: "{host}"}}']
    lines += ["  ports:", f"  - {{port: {port}, protocol: {protocol}}}"]
    return "\n".join(lines) + "\n"
