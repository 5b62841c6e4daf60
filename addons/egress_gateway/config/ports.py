"""The ports of a rule: numbers once each, protocols, and for our own version the port dialled and the TLS mode."""

from __future__ import annotations

from dataclasses import dataclass

from egress_gateway.policy.rule import FAMILY, Family, Port, Protocol, TlsMode

from .problem import shown
from .shape import Record, Shaper, Value
from .tables import ONLY_THESE_PROTOCOLS

_TLS_MODES = {
    Protocol.HTTP: frozenset({TlsMode.ORIGINATE}),
    Protocol.HTTPS: frozenset({TlsMode.ORIGINATE, TlsMode.PASSTHROUGH}),
}
_CIDR_PROTOCOLS = "TCP,MONGO"


@dataclass(frozen=True, slots=True)
class PlacedPort:
    port: Port
    record: Record


def read_ports(shaper: Shaper, spec: Record) -> list[PlacedPort]:
    """The sound ports of `spec`; problems of the others are added."""
    listed = spec.lists.get("ports")
    if not listed:
        if "ports" not in spec.broken:
            node = spec.keys.get("ports") or spec.place("ports")
            message = "egress rule must have a ports list (write ports: [{port: 443, protocol: https}])"
            shaper.error(node, spec.path_of("ports"), message)
        return []
    default = _default_mode(spec)
    seen: set[int] = set()
    ports = []
    for record in listed:
        if isinstance(record, Record):
            port = _read_port(shaper, record, seen, default)
            if port is not None:
                ports.append(PlacedPort(port, record))
    return ports


def _read_port(shaper: Shaper, record: Record, seen: set[int], default: Value | None) -> Port | None:
    number = record.values.get("port")
    if number is None:
        if "port" not in record.broken:
            shaper.error(record.place("port"), record.path_of("port"), "is missing (write port: 443)")
    elif number.number in seen:
        message = f"duplicate port: {number.number} (name a port once in a rule, whatever the protocol)"
        shaper.error(number.node, number.path, message)
    else:
        seen.add(number.number)
    protocol = record.values.get("protocol")
    if protocol is None:
        if "protocol" not in record.broken:
            shaper.error(record.place("protocol"), record.path_of("protocol"), f"is missing ({ONLY_THESE_PROTOCOLS})")
        return None
    spoken = Protocol(protocol.text.lower())
    mode = _mode(shaper, record, spoken, default)
    if number is None:
        return None
    target = record.values.get("targetPort")
    return Port(number.number, spoken, target.number if target else None, mode)


def _default_mode(spec: Record) -> Value | None:
    tls = spec.records.get("tls")
    return tls.values.get("mode") if tls else None


def _mode(shaper: Shaper, record: Record, protocol: Protocol, default: Value | None) -> TlsMode | None:
    tls = record.records.get("tls")
    own = tls.values.get("mode") if tls else None
    chosen = own or default
    if chosen is None:
        return None
    mode = TlsMode(chosen.text.lower())
    if mode in _TLS_MODES.get(protocol, ()):
        return mode
    wanted = "http and https" if mode is TlsMode.ORIGINATE else "https only"
    place = "" if own else f", which {record.path} is not"
    fix = "leave tls out" if own else "set tls.mode on the ports that need it"
    shaper.error(chosen.node, chosen.path, f"{mode} is for {wanted}{place or f', not for {protocol}'} ({fix})")
    return None


def check_cidr_protocols(shaper: Shaper, ports: list[PlacedPort], service: str) -> None:
    """A network is a set of addresses, and plain HTTP or TLS is judged by name: only bytes can go there."""
    for placed in ports:
        port = placed.port
        if FAMILY[port.protocol] is not Family.TCP:
            value = placed.record.values["protocol"]
            shaper.error(
                value.node,
                value.path,
                "Only the following protocols can be defined for CIDR destination service notation: "
                f"{_CIDR_PROTOCOLS}. This rule - port: {port.number} protocol: {shown(value.text)} "
                f"destination.service: {shown(service)} (write tcp, or single addresses)",
            )
