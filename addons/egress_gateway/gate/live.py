"""What is open at the moment, so that a change of rules can end what they no longer allow and touch nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from egress_gateway.policy.hostname import Address
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict

TURN = 0.002
"""Seconds for which connections are judged while others wait."""

logger = logging.getLogger(__name__)


class Live(Protocol):
    """An open tunnel or exchange: the facts it was allowed by, and how to end it. Told apart by identity."""

    request: Request
    treatment: Treatment
    address: Address
    """The address it was connected to."""
    port: int
    """The port it was connected to."""

    @property
    def end(self) -> Callable[[Verdict], None]:
        """Ends it at once; told the verdict that is the reason. Must not raise."""


@dataclass(eq=False, slots=True)
class LiveConnection:
    """A `Live` that is nothing else."""

    request: Request
    treatment: Treatment
    address: Address
    port: int
    end: Callable[[Verdict], None]


class LiveConnections:
    def __init__(self) -> None:
        self._open: set[Live] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Live) -> None:
        self._open.add(connection)

    def discard(self, connection: Live) -> None:
        self._open.discard(connection)

    def judge_again(self, still_allowed: Callable[[Live], Verdict]) -> int:
        """Ends every connection whose verdict is now a refusal; returns how many."""
        return sum(self.judge(connection, still_allowed) for connection in list(self._open))

    async def judge_in_turns(self, still_allowed: Callable[[Live], Verdict]) -> int:
        """The same, with turns for everybody else in between; what is opened meanwhile is judged by who opens it."""
        ended = 0
        until = time.perf_counter() + TURN
        for connection in list(self._open):
            if connection in self._open:
                ended += self.judge(connection, still_allowed)
            if time.perf_counter() >= until:
                await asyncio.sleep(0)
                until = time.perf_counter() + TURN
        return ended

    def judge(self, connection: Live, still_allowed: Callable[[Live], Verdict]) -> bool:
        """Ends `connection` if its verdict is now a refusal; returns whether it did."""
        verdict = still_allowed(connection)
        if verdict.allowed:
            return False
        try:
            connection.end(verdict)
        except Exception:
            # One that cannot be ended must not keep the others from being ended.
            logger.exception("egress: a connection that is no longer allowed could not be ended")
        return True
