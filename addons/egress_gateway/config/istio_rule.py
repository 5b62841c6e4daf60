"""`config.istio.io/v1alpha2`: Istio 0.7's EgressRule, with its checks and the phrases its users know.

One destination, no way to say `allowPrivate` or `allowBroadWildcard`: a private address written out is taken as meant,
and both are warnings.
"""

from __future__ import annotations

from egress_gateway.policy.rule import EgressRule, Source

from .destination import BadService, Service, parse_service
from .identity import Identity
from .ports import check_cidr_protocols, read_ports
from .reach import check_wildcard, istio_allows_private
from .shape import Record, Shaper, Value
from .tables import ISTIO


def read_istio_rule(shaper: Shaper, spec: Record, identity: Identity | None, source: Source) -> EgressRule | None:
    """The rule in `spec`, or None; problems are added either way."""
    service_value = _service_value(shaper, spec)
    ports = read_ports(shaper, spec)
    _check_egress_proxy(shaper, spec)
    service = _service(shaper, service_value) if service_value else None
    if service_value is None or service is None:
        return None
    if service.is_cidr:
        check_cidr_protocols(shaper, ports, service_value.text)
    check_wildcard(shaper, service_value, service.destination, istio=True, broad=False)
    allow_private = istio_allows_private(shaper, service_value, service.destination)
    if identity is None:
        return None
    return EgressRule(
        identity.namespace,
        identity.name,
        (service.destination,),
        tuple(placed.port for placed in ports),
        allow_private=allow_private,
        api_version=ISTIO,
        source=source,
    )


def _service_value(shaper: Shaper, spec: Record) -> Value | None:
    path = spec.path_of("destination")
    destination = spec.records.get("destination")
    if destination is None:
        if "destination" not in spec.broken:
            message = 'destination of egress rule must have destination field (write destination: {service: "…"})'
            shaper.error(spec.place("destination"), path, message)
        return None
    value = destination.values.get("service")
    if value is None and "service" not in destination.broken:
        message = "domain must not be empty string (write a domain, a wildcard or an address)"
        shaper.error(destination.place("service"), destination.path_of("service"), message)
    return value


def _service(shaper: Shaper, value: Value) -> Service | None:
    try:
        service = parse_service(value.text, istio=True)
    except BadService as error:
        shaper.error(value.node, value.path, str(error))
        return None
    if service.advice:
        shaper.warn(value.node, value.path, service.advice)
    return service


def _check_egress_proxy(shaper: Shaper, spec: Record) -> None:
    for name in ("use_egress_proxy", "useEgressProxy"):
        value = spec.values.get(name)
        if value is not None and value.of is True:
            message = "directing traffic through egress proxy is not implemented yet (write false or leave it out)"
            shaper.error(value.node, value.path, message)
