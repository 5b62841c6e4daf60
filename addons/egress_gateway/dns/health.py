"""Which name servers are silent. Pure: time is an argument, in the caller's monotonic seconds.

- A server is silent once a question that any server can answer (see `upstream`) got nothing, and nothing else was
  heard from it since that question was put. One slow name is therefore nobody's silence: whoever owns a zone decides
  how long its answers take, and must not be able to take a server away from everybody else.
- Whatever a server says, an error too, shows that it is there: one word and it is silent no more.
"""

from __future__ import annotations

from collections.abc import Iterable

from egress_gateway.dns.settings import Server


class Health:
    """Remembers as many servers as it is told of, which are those of the configuration."""

    def __init__(self) -> None:
        self._heard_at: dict[Server, float] = {}
        self._silent_since: dict[Server, float] = {}

    def heard(self, server: Server, now: float) -> bool:
        """The server has said something; returns whether it had been silent."""
        self._heard_at[server] = now
        return self._silent_since.pop(server, None) is not None

    def heard_since(self, server: Server, then: float) -> bool:
        """Whether the server has said anything at `then` or later."""
        heard_at = self._heard_at.get(server)
        return heard_at is not None and heard_at >= then

    def unheard(self, server: Server, asked_at: float, now: float) -> bool:
        """The question put at `asked_at` got nothing; returns whether the server has fallen silent by that."""
        if self.heard_since(server, asked_at) or server in self._silent_since:
            return False
        self._silent_since[server] = now
        return True

    def is_silent(self, server: Server) -> bool:
        return server in self._silent_since

    def answering(self, servers: Iterable[Server]) -> tuple[Server, ...]:
        """Those that are not silent, in the order given."""
        return tuple(server for server in servers if server not in self._silent_since)

    def keep(self, servers: Iterable[Server]) -> None:
        """Forgets all others."""
        kept = set(servers)
        for memory in (self._heard_at, self._silent_since):
            for server in [server for server in memory if server not in kept]:
                del memory[server]
