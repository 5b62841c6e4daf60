"""The rules in force: read at the start, then watched, and told of whenever they change or do not load.

What loads is in force at once and as a whole; what does not leaves the last good rules in force, which is logged and
shows in a metric. Nothing of that ends while the gateway runs, and where something of ours fails it is counted as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from egress_gateway.config.beside import beside, short_turns, with_pauses
from egress_gateway.config.load import RulesCache, Snapshot, load_rules
from egress_gateway.config.problem import Problem, RuleErrors, errors_of
from egress_gateway.config.watch import RulesWatcher
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.policy.rule import EgressRule
from egress_gateway.policy.ruleset import RuleSet

logger = logging.getLogger(__name__)

_MOST_SAID = 100
"""Errors or warnings of one reload: a line takes its time, and requests wait for it."""
_MORE = "%d more %s are not shown (egressctl check tells them all)"
_INTERNAL_ERROR = "rules"


class Series(Protocol):
    """Has series for each rule, which go with it."""

    def keep(self, rules: Sequence[EgressRule], names: Callable[[], int]) -> None: ...
    def keep_later(self, rules: Iterable[EgressRule], names: Callable[[], int]) -> Callable[[], None]: ...


class RulesInForce:
    """Keeps those of `gate` what the files of one directory say."""

    def __init__(self, gate: Gatekeeper) -> None:
        self.series: Series | None = None
        self.speaks = True
        """Whether this process says what all of them would say."""
        self._gate = gate
        self._cache = RulesCache()
        self._watcher: RulesWatcher | None = None
        self._digest = ""
        """Of the rules in force; empty where those are none that were read."""
        self._stale = False
        """What was read the last time is not in force, or not wholly taken in."""
        self._half_taken = False
        """It is in force, and something went wrong after that."""
        self._warned: frozenset[Problem] = frozenset()
        self._loaded = asyncio.Event()

    @property
    def are_loaded(self) -> bool:
        return bool(self._digest)

    def load(self, directory: str) -> list[str]:
        """Puts in force what the directory says now; returns why that cannot be done, and then nothing has changed."""
        try:
            with short_turns():
                snapshot = load_rules(directory, revision=1, cache=self._cache)
        except RuleErrors as errors:
            return [str(problem) for problem in errors.errors]
        self._gate.use(snapshot.ruleset)
        self._digest = snapshot.digest
        self.count()
        self._tell(snapshot, 0)
        return []

    def count(self) -> None:
        """Has the rules in force counted, as one does who begins to count."""
        ruleset = self._gate.ruleset
        self._gate.observer.reloaded(len(ruleset.rules), successful=True)
        if self.series is not None:
            self.series.keep(ruleset.rules, self._count_names)

    def forget(self) -> None:
        """Puts nothing in force, and has the rules handed over anew when they are watched."""
        self._digest = ""
        self._gate.use(RuleSet.empty())

    async def watch(self, directory: str) -> None:
        """Has every change in force from now on; returns when the directory was looked at once."""
        self._watcher = RulesWatcher(
            directory, self._use, self._keep_last_good, cache=self._cache, on_fault=self._fault
        )
        await self._watcher.start()

    async def loaded(self) -> None:
        """Returns when rules were read and are in force."""
        if not self.are_loaded:
            await self._loaded.wait()

    def look(self) -> None:
        """Has the rules read now, if they are watched."""
        if self._watcher is not None:
            self._watcher.look()

    async def stop(self) -> None:
        if self._watcher is not None:
            await self._watcher.stop()

    async def _use(self, snapshot: Snapshot) -> None:
        if snapshot.digest == self._digest and not self._stale:
            return
        ended = await self._gate.use_in_turns(snapshot.ruleset)
        self._half_taken = True
        self._digest = snapshot.digest
        self._loaded.set()
        rules = snapshot.ruleset.rules
        if self.series is not None:
            keep = await beside(self.series.keep_later, with_pauses(rules), self._count_names)
            keep()
        self._stale = self._half_taken = False
        self._gate.observer.reloaded(len(rules), successful=True)
        self._tell(snapshot, ended)

    def _keep_last_good(self, problems: Sequence[Problem]) -> None:
        self._stale = True
        half_taken, self._half_taken = self._half_taken, False
        self._gate.observer.reloaded(len(self._gate.ruleset.rules), successful=False)
        if not self.speaks:
            return
        # After the start an error log entry is no longer fatal.
        errors = errors_of(problems)
        for error in errors[:_MOST_SAID]:
            logger.error("egress gateway: %s", error)
        if len(errors) > _MOST_SAID:
            logger.error("egress gateway: %s", _MORE % (len(errors) - _MOST_SAID, "errors"))
        if half_taken:
            logger.error("egress gateway: the new rules are in force, but not taken in wholly; it is tried again.")
        else:
            logger.error("egress gateway: the rules do not load; the last good ones stay in force.")

    def _fault(self) -> None:
        self._gate.observer.internal_error(_INTERNAL_ERROR)

    def _tell(self, snapshot: Snapshot, ended: int) -> None:
        if not self.speaks:
            return
        news = [warning for warning in snapshot.warnings if warning not in self._warned]
        for warning in news[:_MOST_SAID]:
            logger.warning("egress gateway: warning: %s", warning)
        if len(news) > _MOST_SAID:
            logger.warning("egress gateway: warning: %s", _MORE % (len(news) - _MOST_SAID, "warnings"))
        self._warned = frozenset(snapshot.warnings)
        also = f"; {ended} connections ended that they no longer allow" if ended else ""
        count = len(snapshot.ruleset.rules)
        logger.info("egress gateway: %d rule%s in force%s.", count, "" if count == 1 else "s", also)

    def _count_names(self) -> int:
        return len(self._gate.names)
