"""What rules say of a port, whoever is asked for behind it. For transparent modes, where a client may name nobody."""

from __future__ import annotations

from .hostname import Hostname
from .rule import AddressRange, Destination, EgressRule, ExactName, Family, RuleAction


class PortIndex:
    """Filled while a rule set is built, never changed after."""

    def __init__(self) -> None:
        self._byte_names: dict[int, dict[Hostname, None]] = {}
        self._of_names: set[int] = set()
        self._of_addresses: set[int] = set()
        self._spoken: set[int] = set()

    def add(self, destination: Destination, rule: EgressRule) -> None:
        if rule.action is not RuleAction.ALLOW:
            return
        ports = self._of_addresses if isinstance(destination, AddressRange) else self._of_names
        for port in rule.ports:
            ports.add(port.number)
            if port.family is not Family.TCP and not isinstance(destination, AddressRange):
                self._spoken.add(port.number)
            if port.family is Family.TCP and isinstance(destination, ExactName):
                self._byte_names.setdefault(port.number, {})[destination.name] = None

    def byte_names(self, port: int) -> tuple[Hostname, ...]:
        """The names that rules allow as plain bytes on `port`, wildcards left out."""
        return tuple(self._byte_names.get(port, ()))

    def is_spoken(self, port: int) -> bool:
        """Whether rules allow names on `port` by HTTP or TLS, so that a name which is said there counts."""
        return port in self._spoken

    def goes_by_address(self, port: int) -> bool:
        """Whether rules allow addresses on `port` and no names, so that nothing a client says makes a difference."""
        return port in self._of_addresses and port not in self._of_names
