"""HTTPS and SVCB records (RFC 9460), without what would lead a client round the gateway. Pure.

A client learns from them where else a service is, and how to talk to it. What is passed on must end where the rules
would let the client go, or it will be refused there and blame the service:

- `ech` is taken out: with it a client would hide the name that it is judged by. Of the other parameters, those pass
  that are known here to be harmless; a record that makes one of the rest mandatory is left out.
- Hints are addresses like any other: those that may not be told are taken out.
- A record with a port that no rule allows for the name is left out, and so is one that leads to another name, unless
  that name may be asked for. The names that mean the host itself (its own, and the one its aliases led to) become `.`:
  the addresses of the host are found by asking for the host.
- An alias (priority 0) has no parameters, and one that leads nowhere is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import ip_address
from typing import cast

import dns.name
from dns.rdtypes.svcbbase import IPv4HintParam, IPv6HintParam, MandatoryParam, Param, ParamKey, PortParam, SVCBBase

from egress_gateway.policy.hostname import Address, Hostname, MalformedHost, parse_host

type Params = dict[ParamKey, Param | None]

_HINTS: dict[ParamKey, type[IPv4HintParam] | type[IPv6HintParam]] = {
    ParamKey.IPV4HINT: IPv4HintParam,
    ParamKey.IPV6HINT: IPv6HintParam,
}
_PASSED = frozenset({ParamKey.MANDATORY, ParamKey.ALPN, ParamKey.NO_DEFAULT_ALPN, ParamKey.PORT, *_HINTS})
_SERVICE = re.compile(r"_([1-9][0-9]{0,4})\._https\.(.+)")


@dataclass(frozen=True, slots=True)
class Cleaned:
    records: tuple[SVCBBase, ...]
    hints: tuple[Address, ...]
    """The addresses that stand in them."""
    targets: tuple[Hostname, ...]
    """The other names that they lead to."""


def service_of(name: str) -> tuple[str, int | None]:
    """The host and port that a question is about: `_8443._https.www.example.com` asks for port 8443 of a host."""
    found = _SERVICE.fullmatch(name)
    return (found[2], int(found[1])) if found else (name, None)


def clean(
    records: Iterable[SVCBBase],
    *,
    itself: Collection[str],
    dot: Hostname | None = None,
    ports: Collection[int],
    may_ask: Callable[[Hostname], bool],
    reachable: Callable[[Sequence[Address]], Sequence[Address]],
) -> Cleaned:
    """What of `records` may be told, which are not to be told under another name than they were asked for.

    `itself` are the names that mean the host, `dot` is what `.` means where that is not the host, `ports` are those
    that a rule allows.
    """
    kept: list[SVCBBase] = []
    hints: dict[Address, None] = {}
    targets: dict[Hostname, None] = {}
    for record in records:
        target = _target(record, itself, dot)
        elsewhere = target if isinstance(target, str) else None
        if target is _Means.NOTHING or (elsewhere is not None and not may_ask(elsewhere)):
            continue
        params = _params(record, ports, reachable) if record.priority else {}
        if params is None:
            continue
        if elsewhere is not None:
            targets[elsewhere] = None
        hints.update(dict.fromkeys(_addresses_in(params)))
        changed = record.replace(params=params, target=dns.name.root if elsewhere is None else record.target)
        kept.append(cast(SVCBBase, changed))
    return Cleaned(tuple(kept), tuple(hints), tuple(targets))


class _Means(Enum):
    """What a target says that is no other name."""

    ITSELF = auto()
    NOTHING = auto()


def _target(record: SVCBBase, itself: Collection[str], dot: Hostname | None) -> Hostname | _Means:
    """Where `record` leads to."""
    on_the_host = _Means.ITSELF if record.priority else _Means.NOTHING
    text = record.target.to_text(omit_final_dot=True).lower()
    if record.target == dns.name.root:
        if dot is None or not record.priority:
            return on_the_host
        text = dot
    if text in itself:
        return on_the_host
    try:
        host = parse_host(text)
    except MalformedHost:
        return _Means.NOTHING
    return host if isinstance(host, str) else _Means.NOTHING


def _params(
    record: SVCBBase, ports: Collection[int], reachable: Callable[[Sequence[Address]], Sequence[Address]]
) -> Params | None:
    """The parameters that may be told; None where the record may not."""
    mandatory = record.params.get(ParamKey.MANDATORY)
    required = set(mandatory.keys) if isinstance(mandatory, MandatoryParam) else set()
    if required - _PASSED - {ParamKey.ECH}:
        return None
    port = record.params.get(ParamKey.PORT)
    if isinstance(port, PortParam) and port.port not in ports:
        return None
    params: Params = {key: value for key, value in record.params.items() if key in _PASSED}
    for key, kind in _HINTS.items():
        told = reachable(_addresses_in({key: params.pop(key, None)}))
        if told:
            params[key] = kind([str(address) for address in told])
    params.pop(ParamKey.MANDATORY, None)
    required &= params.keys()
    if required:
        params[ParamKey.MANDATORY] = MandatoryParam(sorted(required))  # type: ignore[no-untyped-call]  # dnspython has none
    return dict(sorted(params.items()))


def _addresses_in(params: Params) -> tuple[Address, ...]:
    values = (value for value in params.values() if isinstance(value, IPv4HintParam | IPv6HintParam))
    return tuple(ip_address(text) for value in values for text in value.addresses)
