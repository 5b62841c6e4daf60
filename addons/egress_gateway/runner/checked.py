"""What the supervisor has in the place of an observation: it observes nothing, and says whether one could be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from egress_gateway.observe.listen import parse_listen
from egress_gateway.observe.output import FileOutput
from egress_gateway.policy.events import Observer
from egress_gateway.policy.rule import EgressRule


class Checked:
    """Raises ValueError or OSError as `Observation` does."""

    ports: frozenset[int] = frozenset()

    def __init__(self, *, metrics_listen: str, access_log: str, terminal: bool, mitmproxy: str) -> None:
        self.observer = Observer()
        if metrics_listen:
            parse_listen(metrics_listen)
        if access_log and access_log != "-":
            FileOutput(access_log, "access log").close()

    def show(self, level: int) -> None:
        """There is nothing to show."""

    async def start(self, not_ready: Callable[[], str | None]) -> None:
        """There is nothing to start."""

    def keep(self, rules: Sequence[EgressRule], names: Callable[[], int]) -> None:
        """There is nothing to keep."""

    def keep_later(self, rules: Iterable[EgressRule], names: Callable[[], int]) -> Callable[[], None]:
        return lambda: None

    def reopen(self) -> None:
        """There is nothing open."""

    async def stop(self) -> None:
        """There is nothing to stop."""
