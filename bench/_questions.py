"""Rules of every kind for the bench of decisions, and questions about them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from egress_gateway.policy.hostname import Host, Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.rule import AddressRange, Destination, EgressRule, ExactName, Port, Protocol, Wildcard
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Verdict

_WORDS = ("alpha", "bravo", "delta", "hotel", "india", "oscar", "romeo", "tango")  # of one length
_PORT = 443
_HOSTS = 64
"""Different requests of each kind."""

type Decide = Callable[[RuleSet, Request], Verdict]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of question: the requests of it, and the reason that each verdict must have."""

    name: str
    requests: tuple[Request, ...]
    expected: Reason


def make_ruleset(count: int, *, varied: bool = False) -> RuleSet:
    """Of ten rules four are exact names, three wildcards, one a wildcard inside a label, two address ranges."""
    rules = (
        EgressRule("default", f"rule-{i}", (_destination(i, varied),), (Port(_PORT, Protocol.HTTPS),))
        for i in range(count)
    )
    return RuleSet.build(rules)


def _destination(i: int, varied: bool) -> Destination:
    name = f"{_WORDS[i % 8]}-{i:06}.example.{_WORDS[i // 8 % 8]}"
    if i % 10 < 4:
        return ExactName(Hostname(name))
    if i % 10 < 7:
        return Wildcard(f".{name}")
    if i % 10 < 8:
        return Wildcard(f"-{'x' * (i // 10 % 24 if varied else 0)}{name}")
    length = 18 + i // 10 % 15 if varied else (32, 24)[i % 2]
    # 16.0.0.0 and up, far enough apart that no range holds another.
    return AddressRange(IPv4Network(((16 << 24) + (i << 14), length), strict=False))


def make_kinds(ruleset: RuleSet) -> list[Kind]:
    """Questions to `ruleset`, as many different ones whatever its size."""
    destinations = [rule.destinations[0] for rule in ruleset.rules]
    exact = [each.name for each in destinations if isinstance(each, ExactName)]
    wildcards = [each.suffix for each in destinations if isinstance(each, Wildcard)]
    at_dot = [suffix for suffix in wildcards if suffix.startswith(".")]
    inside = [suffix for suffix in wildcards if not suffix.startswith(".")]
    networks = [each.network for each in destinations if isinstance(each, AddressRange)]
    numbered = range(_HOSTS)
    return [
        _kind("exact name", _take(exact), Reason.ALLOWED),
        _kind(
            "wildcard",
            (f"www.eu-{i}{suffix}" for i, suffix in zip(numbered, _take(at_dot), strict=True)),
            Reason.ALLOWED,
        ),
        _kind(
            "inside a label",
            (f"a{i}{suffix}" for i, suffix in zip(numbered, _take(inside), strict=True)),
            Reason.ALLOWED,
        ),
        _kind("address", (network.network_address for network in _take(networks)), Reason.ALLOWED),
        _kind("other port", _take(exact), Reason.PORT_NOT_ALLOWED, port=8443),
        _kind("other name", (f"www.shop-{i:02}.evil.{_WORDS[i % 8]}" for i in numbered), Reason.NO_RULE),
        _kind("other address", (IPv4Address((201 << 24) + i * 70001) for i in numbered), Reason.NO_RULE),
    ]


def _take[T](items: Sequence[T]) -> Iterator[T]:
    """As many of `items` as there are questions: spread over all of them, or the few again and again."""
    spread = items[:: max(1, len(items) // _HOSTS)]
    return itertools.islice(itertools.cycle(spread), _HOSTS)


def _kind(name: str, hosts: Iterable[Host | str], expected: Reason, port: int = _PORT) -> Kind:
    return Kind(name, tuple(_request(host, port) for host in hosts), expected)


def _request(host: Host | str, port: int) -> Request:
    if isinstance(host, str):
        return Request(Hostname(host), port, Spoken.TLS, sni=Hostname(host))
    return Request(host, port, Spoken.HTTP)


def check(decide: Decide, ruleset: RuleSet, kinds: Sequence[Kind]) -> None:
    """Raises ValueError where a verdict is wrong: a fast wrong answer is worth nothing."""
    for kind in kinds:
        for request in kind.requests:
            reason = decide(ruleset, request).reason
            if reason is not kind.expected:
                raise ValueError(f"{kind.name}: {request.host} port {request.port}: {reason}, not {kind.expected}")


def make_document(i: int) -> str:
    """Rule `i` as it stands in a file."""
    service = _destination(i, varied=False)
    protocol = "tcp" if isinstance(service, AddressRange) else "https"
    return (
        f'kind: EgressRule\nmetadata: {{name: rule-{i}}}\nspec:\n  destination: {{service: "{service}"}}\n'
        f"  ports:\n  - {{port: {_PORT}, protocol: {protocol}}}\n"
    )
