"""What the gateway knows of names: the table of this process, and what its other processes have learned.

Whoever hands an address to a client says so here first. With a journal, what one process learns is known to all of
them before the client has its answer, since asking catches up first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from egress_gateway.dns.answer import Answer
from egress_gateway.policy.destination import plain
from egress_gateway.policy.hostname import Address, Hostname
from egress_gateway.policy.name_table import NameLimits, NameTable

from .name_journal import Learned, NameJournal


class Names:
    """Its `clock` is one that all processes of a machine read alike (CLOCK_MONOTONIC)."""

    def __init__(
        self,
        limits: NameLimits | None = None,
        journal: NameJournal | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = NameTable(limits)
        self._journal = journal
        self._clock = clock
        self._catch_up()  # now, when nobody waits yet for what may take a second

    def __len__(self) -> int:
        return len(self._table)

    def use(self, limits: NameLimits) -> None:
        """Puts other limits in force; what was learned stays."""
        self._table.limits = limits

    def learn(self, name: Hostname, addresses: Iterable[Address], *, ttl: float, client: str) -> None:
        """`client` is about to be told that `name` has `addresses`, for `ttl` seconds."""
        now = self._catch_up()  # often, so that it is never much
        learned = Learned(name, tuple(map(plain, addresses)), now + ttl, client)
        self._take(learned, now)
        if self._journal is not None:
            self._journal.write(learned)

    def learn_answer(self, name: Hostname, answer: Answer, client: str) -> None:
        """The resolver has said where `name` is, on behalf of `client`."""
        self.learn(name, answer.addresses, ttl=max(0.0, answer.expires_at - self._clock()), client=client)

    def has(self, name: Hostname, address: Address) -> bool:
        """Whether `address` is one of the addresses of `name`."""
        now = self._catch_up()
        return self._table.has(name, plain(address), now)

    def addresses_of(self, name: Hostname) -> tuple[Address, ...]:
        """The addresses of `name`, what was learned last first."""
        now = self._catch_up()
        return self._table.addresses_of(name, now)

    def names_of(self, address: Address) -> tuple[Hostname, ...]:
        """The names that have `address`."""
        now = self._catch_up()
        return self._table.names_of(plain(address), now)

    def close(self) -> None:
        """Shares no more; what this process knows it goes on knowing, for connections that are still ending."""
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    def _catch_up(self) -> float:
        now = self._clock()
        if self._journal is not None and self._journal.has_news:
            for learned in self._journal.read():
                self._take(learned, now)
        return now

    def _take(self, learned: Learned, now: float) -> None:
        self._table.learn(learned.name, learned.addresses, until=learned.until, client=learned.client, now=now)
