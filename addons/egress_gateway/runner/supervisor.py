"""Keeps the workers: forks them, starts again what died, tells them to reload or to end.

It has one thread and no event loop, so that a fork takes along all there is, and it does nothing but wait: for signals,
for a child's end, for a worker's word that the board has news.

- A worker that dies is started again at once. One that dies young again and again is waited for longer each time.
- A worker that cannot start when nobody has been ready yet ends the gateway: the reason will not go away.
- When the supervisor dies, the kernel ends its children.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from egress_gateway.observe import merged
from egress_gateway.observe.arena import Arena
from egress_gateway.observe.families import SupervisorFamilies

from .board import Board, State
from .processes import SIGNALS, Child, fork
from .worker import DONE

logger = logging.getLogger(__name__)

_YOUNG = 5.0
"""Seconds; who dies younger has not recovered."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
_GRACE = 2.0
"""Seconds that a child has to end when it was told to do so at once."""


@dataclass(slots=True)
class _Slot:
    number: int
    arena: Arena
    child: Child | None = None
    started: float = 0.0
    start_at: float | None = None
    """When to start it; None while it runs, or is not to."""
    deaths: int = 0
    """In a row, each of them young."""
    starts: int = 0
    is_missed: bool = False
    """Its worker died, and the next one does not serve yet."""


@dataclass(slots=True)
class Supervisor:
    """`work(slot, restarted)` and `serve_telemetry()` run in children and return an exit status.

    What they have to tell is on the `board`; `tell` wakes the supervisor to look.
    """

    board: Board
    arenas: Sequence[Arena]
    """One a slot."""
    own_arena: Arena
    forget: Callable[[int], None]
    """Takes back what the worker of a slot had, which is dead."""
    work: Callable[[int, bool], int]
    serve_telemetry: Callable[[], int] | None
    drain_timeout: float
    on_ready: Callable[[], None]
    """Called once, when all workers are ready for the first time."""
    _slots: list[_Slot] = field(init=False)
    _telemetry: Child | None = None
    _telemetry_at: float | None = None
    _selector: selectors.BaseSelector = field(init=False)
    _news: tuple[int, int] = field(init=False)
    _signals: tuple[int, int] = field(init=False)
    _been_ready: bool = False
    _failed: bool = False
    _end_by: float | None = None
    """When the children are ended that have not ended; None while they are to live."""
    _told_twice: bool = False
    """To end, and so at once."""
    _families: SupervisorFamilies = field(init=False)

    def __post_init__(self) -> None:
        self._slots = [_Slot(number, arena, start_at=0.0) for number, arena in enumerate(self.arenas)]
        self._selector = selectors.DefaultSelector()
        self._news, self._signals = _pipe(), _pipe()
        for end, _ in (self._news, self._signals):
            self._selector.register(end, selectors.EVENT_READ)
        self.own_arena.adopt()
        self._families = SupervisorFamilies(self.own_arena)
        self._families.workers_wanted.at().value = len(self._slots)

    def tell(self) -> None:
        """In a child: the board has news."""
        with suppress(BlockingIOError):  # it will look anyway
            os.write(self._news[1], b"!")

    def run(self) -> int:
        """Until everything has ended; returns an exit status."""
        signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        if self.serve_telemetry is not None:
            self._telemetry_at = 0.0
        while not self._is_over:
            self._start_what_is_due()
            for key, _ in self._selector.select(self._time_left()):
                self._handle(key)
            self._look_at_board()
            self._end_what_is_late()
        self._say_what_was_left()
        signal.set_wakeup_fd(-1)
        return 1 if self._failed else 0

    # --- what happens ---

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.fd == self._news[0]:
            _empty(key.fd)
        elif key.fd == self._signals[0]:
            for number in os.read(key.fd, 64):
                self._on_signal(number)
        elif self._telemetry is not None and key.fd == self._telemetry.descriptor:
            self._on_telemetry_end(self._telemetry)
        else:
            for slot in self._slots:
                if slot.child is not None and slot.child.descriptor == key.fd:
                    self._on_death(slot, slot.child)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            logger.info("egress gateway: reading the rules again, and opening the access log anew if there is one.")
            for child in self._workers:
                child.tell(signal.SIGHUP)
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._end_by is None:
                self._drain()
            else:
                self._told_twice = True
                self._end_by = time.monotonic() + _GRACE
                for child in self._workers:
                    child.tell(signal.SIGTERM)  # the second one

    def _on_death(self, slot: _Slot, child: Child) -> None:
        was = self.board.state(slot.number)
        self._selector.unregister(child.descriptor)
        merged.retire(slot.arena)
        code = child.reap()
        slot.child = None
        if self._end_by is not None and code == -signal.SIGKILL:  # it could not say what it had
            had = max(self.board.left(slot.number), self.board.open_connections(slot.number))
            self.board.set_left(slot.number, had)
        self.board.clear(slot.number)
        self.forget(slot.number)
        if self._end_by is not None:
            return
        if code == DONE or (not self._been_ready and was is not State.READY):
            self._failed = code != DONE
            self._drain()
            return
        logger.error("egress gateway: worker %d (pid %d) %s; starting it again.", slot.number, child.pid, _how(code))
        now = time.monotonic()
        young = now - slot.started < _YOUNG
        slot.deaths = slot.deaths + 1 if young else 0
        pause = min(_FIRST_PAUSE * 2 ** (slot.deaths - 2), _LONGEST_PAUSE) if slot.deaths > 1 else 0.0
        slot.start_at = now + pause
        slot.is_missed = True
        self._families.restarts.at().value += 1

    def _on_telemetry_end(self, child: Child) -> None:
        self._selector.unregister(child.descriptor)
        code = child.reap()
        served = self.board.telemetry_port != 0
        self._telemetry, self.board.telemetry_port = None, 0
        if self._end_by is not None:
            return
        if not served and not self._been_ready:
            self._failed = True  # it has said why
            self._drain()
            return
        logger.error("egress gateway: the process that serves metrics %s; starting it again.", _how(code))
        self._telemetry_at = time.monotonic() + _FIRST_PAUSE

    def _look_at_board(self) -> None:
        ready = self.board.ready
        self._families.workers_ready.at().value = ready
        if not self._been_ready and ready == len(self._slots):
            self._been_ready = True
            self.on_ready()
        for slot in self._slots:
            if slot.is_missed and slot.child is not None and self.board.state(slot.number) is State.READY:
                slot.is_missed = False
                logger.info("egress gateway: worker %d (pid %d) serves in its place.", slot.number, slot.child.pid)

    # --- starting ---

    def _start_what_is_due(self) -> None:
        if self._end_by is not None:
            return
        now = time.monotonic()
        if self._telemetry_at is not None and self._telemetry_at <= now and self.serve_telemetry is not None:
            self._telemetry_at = None
            self._telemetry = self._fork(self.serve_telemetry)
        if self.serve_telemetry is not None and not self._been_ready and not self.board.telemetry_port:
            return  # workers must know all ports before they serve
        for slot in self._slots:
            if slot.start_at is not None and slot.start_at <= now:
                self._start(slot, now)

    def _start(self, slot: _Slot, now: float) -> None:
        number, restarted = slot.number, slot.starts > 0
        slot.start_at, slot.started = None, now
        slot.starts += 1
        self.board.set_state(number, State.STARTING)
        slot.child = self._fork(lambda: self.work(number, restarted))

    def _fork(self, work: Callable[[], int]) -> Child:
        child = fork(lambda: self._be_child(work))
        self._selector.register(child.descriptor, selectors.EVENT_READ)
        return child

    def _be_child(self, work: Callable[[], int]) -> int:
        # What the supervisor waits for is none of a child's business.
        self._selector.close()
        for end in (self._news[0], *self._signals):
            os.close(end)
        for other in [*self._workers, *([self._telemetry] if self._telemetry else [])]:
            os.close(other.descriptor)
        return work()

    # --- ending ---

    def _drain(self) -> None:
        """Everybody is to end, when they are done."""
        self._end_by = time.monotonic() + self.drain_timeout + _GRACE
        self.board.draining = True
        self._families.draining.at().value = 1.0
        busy = sum(self.board.open_connections(slot.number) for slot in self._slots)
        if busy and not self._failed:
            logger.info("egress gateway: ending, %s open.", _connections(busy))
        for child in self._workers:
            child.tell(signal.SIGTERM)

    def _end_what_is_late(self) -> None:
        if self._end_by is None:
            return
        if time.monotonic() >= self._end_by:
            for child in [*self._workers, *([self._telemetry] if self._telemetry else [])]:
                child.tell(signal.SIGKILL)
        if not self._workers and self._telemetry is not None and self._telemetry_at is None:
            # It goes last, and tells until then how the end goes on.
            self._telemetry_at = time.monotonic()
            self._end_by = min(self._end_by, self._telemetry_at + _GRACE)
            self._telemetry.tell(signal.SIGTERM)

    def _say_what_was_left(self) -> None:
        left = sum(self.board.left(slot.number) for slot in self._slots)
        if left and self._told_twice:
            why = "since it was told to end a second time"
            logger.warning("egress gateway: %s %s cut off, %s.", _connections(left), _were(left), why)
        elif left:
            logger.warning("egress gateway: %s had not ended in time and %s cut off.", _connections(left), _were(left))

    @property
    def _workers(self) -> list[Child]:
        return [slot.child for slot in self._slots if slot.child is not None]

    @property
    def _is_over(self) -> bool:
        return self._end_by is not None and not self._workers and self._telemetry is None

    def _time_left(self) -> float | None:
        """Until something is due by itself."""
        due = [slot.start_at for slot in self._slots if slot.start_at is not None]
        due += [at for at in (self._telemetry_at, self._end_by) if at is not None]
        if self._end_by is not None:
            due = [self._end_by]
        elif not self._been_ready and self._telemetry is not None and not self.board.telemetry_port:
            return None  # it tells, or it ends
        return max(0.0, min(due) - time.monotonic()) if due else None


def _how(code: int) -> str:
    if code >= 0:
        return f"has ended with status {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _connections(count: int) -> str:
    return f"{count} connection{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _pipe() -> tuple[int, int]:
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return ends[0], ends[1]


def _empty(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass
