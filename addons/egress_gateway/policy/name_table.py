"""Which addresses a name has been seen to have: knowledge out of DNS answers, kept for a while, in bounded room. Pure.

What a name *has* is not one look-up: a CDN gives each asker another choice of its addresses, and an application holds
on to the answer it got. So every answer that a client may act on is learned here, and counts until its time to live
and a grace period are over.

- Learning again only ever adds: an address stays until the latest time that any answer has given it, whatever the
  order in which the answers came. (The tests hold the table to that law.)
- A name is kept on behalf of the clients that asked for it. Each client may hold `names_per_client`; for more, the one
  that it learned longest ago is given up, and a name that nobody holds is forgotten. So one client that asks for many
  names costs the others nothing. A name is held by the first `HOLDERS` that ask for it, so that clients without number,
  as whoever makes up addresses has them, take no room.
- A name has at most `addresses_per_name`, and the table at most `names` and `addresses` in all; what was learned
  longest ago makes room.
- Time is an argument, in seconds of one clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from .hostname import Address, Hostname

HOLDERS = 8
NAMES_OF_ADDRESS = 256
"""Whoever owns a domain can give thousands of names one address."""


@dataclass(frozen=True, slots=True)
class NameLimits:
    """How much is remembered, and for how long."""

    grace: float = 300.0
    """Seconds for which an address still counts after its time to live."""
    names: int = 20_000
    """In all."""
    addresses: int = 100_000
    """Of all names together."""
    addresses_per_name: int = 1_000
    names_per_client: int = 2_000

    def __post_init__(self) -> None:
        if self.grace < 0:
            raise ValueError(f"grace: {self.grace:g} is negative (use 0 or more seconds)")
        for name in ("names", "addresses", "addresses_per_name", "names_per_client"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is too few (use 1 or more)")


@dataclass(slots=True)
class _Known:
    addresses: dict[Address, float] = field(default_factory=dict)
    """Until when each counts; what was learned last stands last."""
    holders: set[str] = field(default_factory=set)
    until: float = 0.0
    """The latest time in `addresses`, now or before."""


class NameTable:
    """Belongs to one process; see `gate.names` for what several of them share."""

    def __init__(self, limits: NameLimits | None = None) -> None:
        self.limits = limits or NameLimits()
        """May be replaced; lower bounds are reached as more is learned."""
        self._names: dict[Hostname, _Known] = {}  # what was learned last stands last
        self._held: dict[str, dict[Hostname, None]] = {}
        self._at: dict[Address, dict[Hostname, None]] = {}
        self._addresses = 0

    def __len__(self) -> int:
        """How many names are kept; some of them may have expired and not yet been noticed."""
        return len(self._names)

    # --- questions ---

    def has(self, name: Hostname, address: Address, now: float) -> bool:
        """Whether `address` is one of the addresses of `name`."""
        known = self._names.get(name)
        return known is not None and known.addresses.get(address, 0.0) > now

    def addresses_of(self, name: Hostname, now: float) -> tuple[Address, ...]:
        """The addresses of `name`, what was learned last first."""
        known = self._names.get(name)
        if known is None:
            return ()
        return tuple(address for address, until in reversed(known.addresses.items()) if until > now)

    def names_of(self, address: Address, now: float) -> tuple[Hostname, ...]:
        """The names that have `address`, what was learned last first, and no more than `NAMES_OF_ADDRESS`."""
        names = islice(reversed(self._at.get(address, {})), NAMES_OF_ADDRESS)
        return tuple(name for name in names if self.has(name, address, now))

    # --- learning ---

    def learn(self, name: Hostname, addresses: Iterable[Address], *, until: float, client: str, now: float) -> None:
        """`client` was told that `name` has `addresses`, which it may use until `until`."""
        until += self.limits.grace
        if until <= now:
            return
        known = self._names.pop(name, None) or _Known()
        self._names[name] = known
        told = tuple(addresses)
        for address in told:
            self._add(name, known, address, until)
        if not known.addresses:
            del self._names[name]
            return
        known.until = max(known.until, until)
        self._hold(client, name, known)
        self._expire(name, known, len(told) + 1, now)
        self._expire_names(now)
        while len(self._names) > self.limits.names or self._addresses > self.limits.addresses:
            self._forget(next(iter(self._names)))

    def _add(self, name: Hostname, known: _Known, address: Address, until: float) -> None:
        before = known.addresses.pop(address, None)
        known.addresses[address] = until if before is None else max(before, until)
        names = self._at.setdefault(address, {})
        names.pop(name, None)
        names[name] = None
        if before is not None:
            return
        self._addresses += 1
        if len(known.addresses) > self.limits.addresses_per_name:
            self._drop(name, known, next(iter(known.addresses)))

    def _hold(self, client: str, name: Hostname, known: _Known) -> None:
        if len(known.holders) >= HOLDERS and client not in known.holders:
            return
        held = self._held.setdefault(client, {})
        held.pop(name, None)
        held[name] = None
        known.holders.add(client)
        if len(held) > self.limits.names_per_client:
            oldest = next(iter(held))
            del held[oldest]
            given_up = self._names[oldest]
            given_up.holders.discard(client)
            if not given_up.holders:
                self._forget(oldest)

    def _expire(self, name: Hostname, known: _Known, most: int, now: float) -> None:
        """Looks at the `most` addresses that were learned longest ago: more than have just come in."""
        for address, until in list(islice(known.addresses.items(), most)):
            if until <= now:
                self._drop(name, known, address)

    def _expire_names(self, now: float) -> None:
        """Looks at the two names that were learned longest ago: one more than has just come in."""
        for name, known in list(islice(self._names.items(), 2)):
            if known.until <= now:
                self._forget(name)

    def _drop(self, name: Hostname, known: _Known, address: Address) -> None:
        del known.addresses[address]
        self._addresses -= 1
        names = self._at[address]
        del names[name]
        if not names:
            del self._at[address]

    def _forget(self, name: Hostname) -> None:
        known = self._names[name]
        for address in list(known.addresses):
            self._drop(name, known, address)
        for client in known.holders:
            held = self._held[client]
            held.pop(name, None)
            if not held:
                del self._held[client]
        del self._names[name]
