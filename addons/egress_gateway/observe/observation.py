"""Everything that watches one gateway process, made, started and stopped together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from egress_gateway import __version__
from egress_gateway.policy.events import Observer
from egress_gateway.policy.rule import EgressRule

from .access_log import AccessLog
from .admin import AdminServer
from .arena import Arena
from .fanout import Observers
from .metrics import Metrics
from .terminal import Terminal

_REFRESH_SECONDS = 1.0


class Observation:
    """Metrics always; an access log, lines in the terminal and the HTTP server for metrics where asked for."""

    def __init__(
        self,
        *,
        metrics_listen: str,
        access_log: str,
        terminal: bool,
        mitmproxy: str,
        arena: Arena | None = None,
        serve: bool = True,
    ) -> None:
        """`metrics_listen` is `host:port` or empty, `access_log` a path, `-` or empty.

        One of several processes counts in an `arena` that another one reads, and does not `serve` metrics itself.
        Raises ValueError or OSError with one line that says what to write instead.
        """
        self.metrics = Metrics(version=__version__, mitmproxy=mitmproxy, arena=arena)
        self._refreshing: asyncio.TimerHandle | None = None
        self._is_read_by_another = arena is not None
        self._not_ready: Callable[[], str | None] = lambda: "starting"
        self._admin = (
            AdminServer(metrics_listen, self.metrics.exposition, lambda: self._not_ready() or "")
            if metrics_listen and serve
            else None
        )
        self._access_log = AccessLog(access_log) if access_log else None
        self._terminal = Terminal() if terminal else None
        self._observers = Observers()
        self.observer: Observer = self._observers
        self._listen()
        if self._access_log is not None:
            self.metrics.access_log_dropped = lambda: self._access_log.dropped if self._access_log else 0

    @property
    def ports(self) -> frozenset[int]:
        """Ports that are listened on."""
        port = self._admin.address.rpartition(":")[2] if self._admin else ""
        return frozenset({int(port)} if port else ())

    def show(self, level: int) -> None:
        """Sets how much the terminal shows: 0 nothing, 1 a line each, 2 and 3 more."""
        if self._terminal is not None:
            self._terminal.level = level
            self._listen()

    async def start(self, not_ready: Callable[[], str | None]) -> None:
        """Serves metrics and health; `not_ready` says why the gateway is not ready, or None. Raises OSError."""
        self._not_ready = not_ready
        if self._admin is not None:
            await self._admin.start()
        if self._is_read_by_another:
            self._refresh()

    def keep(self, rules: Sequence[EgressRule], names: Callable[[], int]) -> None:
        """The rules in force now: series of others are forgotten. `names` counts those whose addresses are known."""
        self.keep_later(rules, names)()

    def keep_later(self, rules: Iterable[EgressRule], names: Callable[[], int]) -> Callable[[], None]:
        """The same in two steps: this one, which is long for many rules, in any thread; what it returns as ever."""
        self.metrics.names = names
        return self.metrics.keep_later(rules)

    def reopen(self) -> None:
        """Opens the access log anew, before its next line (after a log rotation)."""
        if self._access_log is not None:
            self._access_log.reopen()

    async def stop(self) -> None:
        """Writes out what is queued and stops serving."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        if self._admin is not None:
            await self._admin.stop()
        for output in (self._access_log, self._terminal):
            if output is not None:
                # A disk that hangs must not hold up connections that are still being drained.
                await asyncio.to_thread(output.close)
        self.metrics.refresh()

    def _listen(self) -> None:
        terminal = self._terminal if self._terminal is not None and self._terminal.level > 0 else None
        present = (self.metrics, self._access_log, terminal)
        self._observers.use(*(each for each in present if each is not None))

    def _refresh(self) -> None:
        """Whoever reads the arena cannot ask for figures that others keep."""
        self.metrics.refresh()
        self._refreshing = asyncio.get_running_loop().call_later(_REFRESH_SECONDS, self._refresh)
