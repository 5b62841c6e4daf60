"""`egress.mitmproxy/v1`: the same object with what Istio's lacked.

Several destinations, IPv6, deny, another target port, a TLS mode; and nothing broad or private without saying so.
"""

from __future__ import annotations

from egress_gateway.policy.rule import AddressCheck, Destination, EgressRule, RuleAction, Source

from .destination import BadService, parse_service
from .identity import Identity
from .ports import PlacedPort, check_cidr_protocols, read_ports
from .reach import check_wildcard, warn_without_effect
from .shape import Record, Shaper, Value
from .tables import OURS


def read_own_rule(shaper: Shaper, spec: Record, identity: Identity | None, source: Source) -> EgressRule | None:
    """The rule in `spec`, or None; problems are added either way."""
    action = RuleAction(spec.text("action", RuleAction.ALLOW.value).lower())
    destination = spec.records.get("destination")
    if destination is None and "destination" not in spec.broken:
        message = 'egress rule must have a destination field (write destination: {services: ["…"]})'
        shaper.error(spec.place("destination"), spec.path_of("destination"), message)
    ports = read_ports(shaper, spec)
    if action is RuleAction.DENY:
        _refuse_treatment(shaper, spec, destination, ports)
    if destination is None:
        return None
    allow_private = destination.flag("allowPrivate")
    check = AddressCheck(destination.text("check", AddressCheck.ENFORCE.value).lower())
    services = _services(shaper, destination)
    destinations = _destinations(
        shaper, services, ports, broad=spec.flag("allowBroadWildcard"), allow_private=allow_private, action=action
    )
    if identity is None:
        return None
    return EgressRule(
        identity.namespace,
        identity.name,
        destinations,
        tuple(placed.port for placed in ports),
        action=action,
        allow_private=allow_private,
        check=check,
        api_version=OURS,
        source=source,
    )


def _services(shaper: Shaper, destination: Record) -> list[Value]:
    single, several = destination.values.get("service"), destination.lists.get("services")
    if destination.has("service") and destination.has("services"):
        path = destination.path_of("service")
        shaper.error(destination.keys["service"], path, "stands beside services (write all of them in services)")
    values = [single] if single else [value for value in several or () if isinstance(value, Value)]
    if not values and not destination.broken & {"service", "services"}:
        node = destination.keys.get("services") or destination.place("services")
        message = 'domain must not be empty string (write services: ["www.example.com"])'
        shaper.error(node, destination.path_of("services"), message)
    return values


def _destinations(
    shaper: Shaper,
    services: list[Value],
    ports: list[PlacedPort],
    *,
    broad: bool,
    allow_private: bool,
    action: RuleAction,
) -> tuple[Destination, ...]:
    found: dict[Destination, None] = {}  # a set that keeps the order
    cidr = ""
    denies = action is RuleAction.DENY
    for value in services:
        try:
            service = parse_service(value.text, istio=False)
        except BadService as error:
            shaper.error(value.node, value.path, str(error))
            continue
        if service.advice:
            shaper.warn(value.node, value.path, service.advice)
        if service.destination in found:
            shaper.warn(value.node, value.path, f"{service.destination} is named twice (leave one out)")
        found[service.destination] = None
        if service.is_cidr:
            cidr = cidr or value.text
        if not denies:
            # To refuse much is harmless, and needs no private address to be dialled.
            check_wildcard(shaper, value, service.destination, istio=False, broad=broad)
            warn_without_effect(shaper, value, service.destination, allow_private=allow_private)
    if cidr:
        check_cidr_protocols(shaper, ports, cidr)
    return tuple(found)


def _refuse_treatment(shaper: Shaper, spec: Record, destination: Record | None, ports: list[PlacedPort]) -> None:
    """What would be done with allowed traffic means nothing in a rule that denies it."""
    message = "means nothing with action: deny (leave it out)"
    records = [(spec, "tls"), (spec, "allowBroadWildcard")]
    if destination is not None:
        records += [(destination, "allowPrivate"), (destination, "check")]
    for placed in ports:
        records += [(placed.record, "targetPort"), (placed.record, "tls")]
    for record, name in records:
        if record.has(name):
            shaper.error(record.keys[name], record.path_of(name), message)
