"""Finds the destinations that match a host, most specific first, at a cost that does not grow with the rules.

Names: a dict of exact names, a dict of wildcards that begin at a dot (one look-up a label), and a dict for each
length of the rarer wildcards that begin inside a label (`*foo.com`, `*-bar.foo.com`). Addresses: a dict for each
prefix length in use. `tests/policy` holds all of it against a matcher that just tries every rule.
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
        self._exact: dict[str, T] = {}
        self._at_dot: dict[str, T] = {}
        self._inside_label: dict[str, T] = {}
        self._inside_lengths: tuple[int, ...] = ()
        self._networks: dict[int, dict[int, dict[int, T]]] = {4: {}, 6: {}}
        self._shifts: dict[int, tuple[tuple[int, dict[int, T]], ...]] = {4: (), 6: ()}

    def setdefault(self, destination: Destination, value: T) -> T:
        """The value at `destination`, put there if there was none."""
        if isinstance(destination, ExactName):
            return self._exact.setdefault(destination.name, value)
        if isinstance(destination, Wildcard):
            suffix = destination.suffix
            if suffix == "" or suffix.startswith("."):
                return self._at_dot.setdefault(suffix, value)
            self._inside_lengths = tuple(sorted({*self._inside_lengths, len(suffix)}, reverse=True))
            return self._inside_label.setdefault(suffix, value)
        network = destination.network
        shift = network.max_prefixlen - network.prefixlen
        by_prefix = self._networks[network.version]
        found = by_prefix.setdefault(shift, {}).setdefault(int(network.network_address) >> shift, value)
        if len(self._shifts[network.version]) != len(by_prefix):
            self._shifts[network.version] = tuple(sorted(by_prefix.items(), key=lambda item: item[0]))
        return found

    def lookup(self, host: Host) -> Iterator[T]:
        """The values of all destinations that match `host`, most specific first."""
        if isinstance(host, IPv4Address | IPv6Address):
            number = int(host)
            for shift, entries in self._shifts[host.version]:
                entry = entries.get(number >> shift)
                if entry is not None:
                    yield entry
            return
        entry = self._exact.get(host)
        if entry is not None:
            yield entry
        if self._inside_lengths:
            yield from self._wildcards_of_both_kinds(host)
            return
        at_dot = self._at_dot
        if not at_dot:
            return
        # A dot in front cannot happen in a canonical name, so every suffix found leaves something for the star.
        dot = host.find(".")
        while dot >= 0:
            entry = at_dot.get(host[dot:])
            if entry is not None:
                yield entry
            dot = host.find(".", dot + 1)
        entry = at_dot.get("")
        if entry is not None:
            yield entry

    def _wildcards_of_both_kinds(self, host: str) -> Iterator[T]:
        length = len(host)
        lengths = {size for size in self._inside_lengths if size < length}
        lengths.update(length - i for i, character in enumerate(host) if character == ".")
        lengths.add(0)
        for size in sorted(lengths, reverse=True):
            suffix = host[length - size :]
            entry = self._at_dot.get(suffix)
            if entry is None:
                entry = self._inside_label.get(suffix)
            if entry is not None:
                yield entry
