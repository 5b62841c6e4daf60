"""A client that the runner has accepted. It knows whether anything is going on, so that it is ended without harm."""

from __future__ import annotations

from dataclasses import dataclass

from egress_gateway.policy.events import Exchange
from egress_gateway.relay.client import Client, on_the_way, unread


@dataclass(slots=True)
class Guest(Client):
    exchange: Exchange | None = None
    """What began last: a request, or a tunnel."""

    def begin(self) -> Exchange:
        self.exchange = exchange = Client.begin(self)
        return exchange

    @property
    def is_idle(self) -> bool:
        """Whether neither a request nor a tunnel is under way, no part of one has come, and all answers have arrived:
        the kernel throws away what has not, where a socket is closed with another request unread."""
        # How long it took is known of an exchange that is over, and of no other.
        over = self.exchange is None or self.exchange.duration > 0
        # What this process had no time to read yet, say since it did not run, is on its way to the buffer.
        return over and not self.input.buffer and not unread(self.writer) and not on_the_way(self.writer)
