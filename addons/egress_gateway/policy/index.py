"""Finds the destinations that match a host, most specific first, at a cost that does not grow with the rules.

Names: a dict of exact names, a dict of wildcards that begin at a dot (one look-up a label), and for the rarer wildcards
that begin inside a label (`*foo.com`, `*-bar.foo.com`) a dict by what follows that label, of dicts by how much of the
label they hold. Addresses: a dict for each prefix length in use. `tests/policy` holds all of it against a matcher
that just tries every rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from .hostname import Host
from .rule import AddressRange, Destination, ExactName, Wildcard


def matches(destination: Destination, host: Host) -> bool:
    """The definition of a match, for one destination; the index below gives the same answers faster."""
    if isinstance(host, IPv4Address | IPv6Address):
        return (
            isinstance(destination, AddressRange)
            and destination.network.version == host.version
            and host in destination.network
        )
    if isinstance(destination, ExactName):
        return destination.name == host
    if isinstance(destination, Wildcard):
        return len(host) > len(destination.suffix) and host.endswith(destination.suffix)
    return False


def specificity(destination: Destination) -> tuple[int, int]:
    """Sorts destinations that match one host: exact above wildcards, longer above shorter."""
    if isinstance(destination, ExactName):
        return (2, 0)
    if isinstance(destination, Wildcard):
        return (1, len(destination.suffix))
    return (2, destination.network.prefixlen)


class DestinationIndex[T]:
    """A map from destinations to values, read by host. Filled while a rule set is built, never changed after."""

    def __init__(self) -> None:
        self.exact: dict[str, T] = {}
        """The values of exact names, for who needs no more; read only."""
        self._at_dot: dict[str, T | None] = {"": None}
        """The values of wildcards that begin at a dot. What such suffixes end in, from dot to dot, is there as well,
        with None, and so is what follows the labels that other wildcards begin in: where nothing is, nothing longer
        can be."""
        self._inside_label: dict[str, dict[int, dict[str, T]]] = {}
        self._networks: dict[int, dict[int, dict[int, T]]] = {4: {}, 6: {}}
        self._shifts: dict[int, tuple[tuple[int, dict[int, T]], ...]] = {4: (), 6: ()}

    def setdefault(self, destination: Destination, value: T) -> T:
        """The value at `destination`, put there if there was none."""
        if isinstance(destination, ExactName):
            return self.exact.setdefault(destination.name, value)
        if isinstance(destination, Wildcard):
            suffix = destination.suffix
            if suffix == "" or suffix.startswith("."):
                return self._setdefault_at_dot(suffix, value)
            return self._setdefault_inside(suffix, value)
        network = destination.network
        shift = network.max_prefixlen - network.prefixlen
        by_prefix = self._networks[network.version]
        found = by_prefix.setdefault(shift, {}).setdefault(int(network.network_address) >> shift, value)
        if len(self._shifts[network.version]) != len(by_prefix):
            self._shifts[network.version] = tuple(sorted(by_prefix.items(), key=lambda item: item[0]))
        return found

    def _setdefault_at_dot(self, suffix: str, value: T) -> T:
        self._make_way(suffix)
        found = self._at_dot[suffix]
        if found is not None:
            return found
        self._at_dot[suffix] = value
        return value

    def _setdefault_inside(self, suffix: str, value: T) -> T:
        tail, dot, rest = suffix.partition(".")
        self._make_way(dot + rest)
        by_length = self._inside_label.setdefault(dot + rest, {})
        if len(tail) not in by_length:
            by_length[len(tail)] = {}
            # Longer tails are more specific, and dicts keep their order.
            self._inside_label[dot + rest] = by_length = dict(sorted(by_length.items(), reverse=True))
        return by_length[len(tail)].setdefault(tail, value)

    def _make_way(self, suffix: str) -> None:
        """Puts `suffix` and all that it ends in among the keys; stops where that has been done before."""
        at_dot = self._at_dot
        while suffix not in at_dot:
            at_dot[suffix] = None
            dot = suffix.find(".", 1)
            suffix = suffix[dot:] if dot > 0 else ""

    def values(self) -> Iterator[T]:
        """Every value, in no particular order."""
        yield from self.exact.values()
        yield from (value for value in self._at_dot.values() if value is not None)
        for by_length in self._inside_label.values():
            for by_tail in by_length.values():
                yield from by_tail.values()
        for by_prefix in self._networks.values():
            for entries in by_prefix.values():
                yield from entries.values()

    def lookup(self, host: Host) -> list[T]:
        """The values of all destinations that match `host`, most specific first."""
        found: list[T] = []
        if not isinstance(host, str):
            number = int(host)
            for shift, entries in self._shifts[host.version]:
                entry = entries.get(number >> shift)
                if entry is not None:
                    found.append(entry)
            return found
        # From the end, so that it is over where no wildcard goes on; what is found last is the most specific.
        at_dot, inside = self._at_dot, self._inside_label
        rest, end = "", len(host)
        while rest in at_dot:
            value = at_dot[rest]
            # A dot in front cannot happen in a canonical name, so what a wildcard at a dot matches leaves something
            # for its star; inside the first label that has to be seen to.
            if value is not None:
                found.append(value)
            dot = host.rfind(".", 0, end)
            if rest in inside:
                found += _ends_of_label(inside[rest], host, dot + 1, end)
            if dot < 0:
                break
            rest, end = host[dot:], dot
        exact = self.exact.get(host)
        if exact is not None:
            found.append(exact)
        found.reverse()
        return found


def _ends_of_label[V](tails: dict[int, dict[str, V]], host: str, start: int, end: int) -> list[V]:
    """The values whose tail ends the label `host[start:end]`, shortest tail first."""
    found = []
    longest = end - start if start else end - 1
    for length, by_tail in tails.items():
        if length <= longest:
            value = by_tail.get(host[end - length : end])
            if value is not None:
                found.append(value)
    found.reverse()
    return found
