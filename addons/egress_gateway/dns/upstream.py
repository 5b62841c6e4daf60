"""The name servers behind us, as one: asks them, finds out who is silent, and who is back.

A server that does not answer costs whoever asks it a time-out. So that only the first ones pay it:

- When a question has waited for half its time and nothing at all was heard from the server since, the server is asked
  for the name servers of the root, which every resolver knows. No answer to that either: it is silent (`health`).
- A silent server is passed over while another one answers. Where all are silent, lookups fail at once.
- Every lookup that meets a silent server sees to it that the server is being checked, by that question and by the
  lookup's own: one check at a time, for `CHECK_SECONDS`, of which lookups wait for the first `AT_ONCE`. One word from
  the server, and it is asked as before.

So a silent server is noticed after one time-out, is asked for two names a second and no more, and whoever asks first
once it is back gets an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import dns.message
import dns.name
import dns.rdatatype

from egress_gateway.dns import client
from egress_gateway.dns.answer import ResolveError, ResolveFailure
from egress_gateway.dns.health import Health
from egress_gateway.dns.settings import Server

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
AT_ONCE = 0.25

type Question = tuple[dns.name.Name, dns.rdatatype.RdataType]

_ANYBODY_KNOWS: Question = (dns.name.root, dns.rdatatype.NS)


class Upstream:
    """Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._health = Health()
        self._checks: dict[Server, asyncio.Task[None]] = {}
        self._waited_until = 0.0  # in the loop's time: until when lookups wait for the checks that are under way

    async def ready(self, servers: tuple[Server, ...], name: dns.name.Name) -> tuple[Server, ...]:
        """Those of `servers` to ask for `name`. Raises ResolveError where all of them are silent."""
        self._health.keep(servers)
        answering = self._health.answering(servers)
        if len(answering) == len(servers):
            return answering
        question = (name, dns.rdatatype.A)
        checks = [self._check(server, CHECK_SECONDS, question) for server in servers if server not in answering]
        left = self._waited_until - asyncio.get_running_loop().time()
        if not answering and left > 0:
            # Not shielded: waiting on a task does not cancel it.
            await asyncio.wait(checks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            answering = self._health.answering(servers)
        if not answering:
            raise ResolveError(ResolveFailure.TIMEOUT, name.to_text(omit_final_dot=True), _nobody(servers))
        return answering

    async def ask(
        self, server: Server, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, /, *, within: float
    ) -> dns.message.Message:
        """The same as `client.ask`, and gives up at once on a server that has fallen silent meanwhile."""
        if self._health.is_silent(server):
            raise ResolveError(ResolveFailure.TIMEOUT, name.to_text(omit_final_dot=True), _nobody((server,)))
        asked_at = self._clock()
        suspicion = asyncio.get_running_loop().call_later(within / 2, self._suspect, server, asked_at, within * 0.45)
        try:
            message = await client.ask(server, name, rdtype, within=within)
        except ResolveError as error:
            if error.kind is not ResolveFailure.TIMEOUT:
                self._heard(server)
            elif (check := self._checks.get(server)) is not None:
                await asyncio.wait({check})  # it ends about now, and whoever goes on should know
            raise
        finally:
            suspicion.cancel()
        self._heard(server)
        return message

    async def close(self) -> None:
        checks = tuple(self._checks.values())
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    def _suspect(self, server: Server, asked_at: float, seconds: float) -> None:
        if not self._health.heard_since(server, asked_at) and not self._health.is_silent(server):
            self._check(server, seconds)

    def _check(self, server: Server, seconds: float, *more: Question) -> asyncio.Task[None]:
        """The check of `server` that is under way, or a new one."""
        running = self._checks.get(server)
        if running is not None and not running.done():
            return running
        self._waited_until = asyncio.get_running_loop().time() + AT_ONCE
        task = asyncio.create_task(self._listen(server, seconds, (_ANYBODY_KNOWS, *more)))
        self._checks[server] = task
        task.add_done_callback(lambda done: self._checks.pop(server) if self._checks.get(server) is done else None)
        return task

    async def _listen(self, server: Server, seconds: float, questions: tuple[Question, ...]) -> None:
        """Puts the questions, and ends when one is answered or the time is over."""
        asked_at = self._clock()
        waiting = {asyncio.create_task(_is_answered(server, question, seconds)) for question in questions}
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if any(task.result() for task in done):
                    self._heard(server)
                    return
        finally:
            for task in waiting:
                task.cancel()
        if self._health.unheard(server, asked_at, self._clock()):
            logger.warning("the name server %s port %d has fallen silent", *server)

    def _heard(self, server: Server) -> None:
        if self._health.heard(server, self._clock()):
            logger.warning("the name server %s port %d answers again", *server)


async def _is_answered(server: Server, question: Question, seconds: float) -> bool:
    """Whether the server says anything at all, be it an error."""
    try:
        await client.ask(server, *question, within=seconds)
    except ResolveError as error:
        return error.kind is not ResolveFailure.TIMEOUT
    except Exception:
        logger.exception("checking a name server failed in an unforeseen way")
    return True


def _nobody(servers: tuple[Server, ...]) -> str:
    shown = ", ".join(f"{host} port {port}" for host, port in servers)
    return f"{shown}: silent for a while"
