"""Sees that the rules directory changed, loads it beside the event loop, and hands over the outcome.

Two ways to see, since neither is enough: file system events are quick, but a directory that is removed, swapped or on a
network file system gives none; comparing names, sizes and times every second (every few, of very many files) always
works. A Kubernetes ConfigMap changes by a swap of its `..data` link, so events are not filtered by `*.yaml`.

What does not load leaves the last good rules in force: only `on_failed` is called then, and again only when the
problems are others.

Nothing ends the watch but `stop`, since rules that nobody reads any more would stay in force for good. Where something
of our own fails (no thread can be started, say), `on_fault` is called and `on_failed` as well, and the rules are read
again after a pause that doubles from time to time, whether or not they look changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from os import PathLike
from types import TracebackType
from typing import Self

from watchfiles import Change, awatch

from .beside import Pauses, beside, let_go
from .limits import DEFAULT_LIMITS, Limits
from .load import RulesCache, Snapshot, is_rule_file, load_rules
from .problem import Problem, RuleErrors

logger = logging.getLogger(__name__)
# "3 changes detected" where one file was written, in every worker; what becomes of them we say ourselves.
logging.getLogger("watchfiles").setLevel(logging.WARNING)

_LOOK_SHARE = 20
"""Polling rests for so many times as long as a look takes."""

OnLoaded = Callable[[Snapshot], Awaitable[None] | None]
OnFailed = Callable[[Sequence[Problem]], None]
OnFault = Callable[[], None]


class RulesWatcher:
    """Calls `on_loaded` with every new snapshot and `on_failed` with why there is none, in the event loop.

    `on_loaded` may return something to wait for, as long as which nothing else is loaded. When it is done nobody should
    hold the snapshot before, which is taken apart beside the loop. `cache` may hold what was read earlier.

    `start` returns after the first load, whose outcome was handed over by then, or raises why the directory cannot be
    watched. `poll_interval`, `debounce` and `longest_pause`, after which it is tried again at the latest where
    something of ours fails, are in seconds. `on_fault` is called each time that happens, when it has been logged.
    Revisions of the rule sets count from 1, one for each snapshot handed over.
    """

    def __init__(
        self,
        directory: str | PathLike[str],
        on_loaded: OnLoaded,
        on_failed: OnFailed,
        *,
        limits: Limits = DEFAULT_LIMITS,
        poll_interval: float = 1.0,
        debounce: float = 0.1,
        longest_pause: float = 30.0,
        cache: RulesCache | None = None,
        on_fault: OnFault = lambda: None,
    ) -> None:
        self._directory = os.fspath(directory)
        self._absolute = os.path.abspath(self._directory)
        self._on_loaded = on_loaded
        self._on_failed = on_failed
        self._on_fault = on_fault
        self._limits = limits
        self._poll_interval = poll_interval
        self._debounce_ms = max(1, int(debounce * 1000))
        self._longest_pause = longest_pause
        self._cache = cache or RulesCache()
        self._revision = 0
        self._in_force: Snapshot | None = None
        self._problems: tuple[Problem, ...] | None = None  # of the last load, None when it was good
        self._seen: Fingerprint | None = None
        self._fault = False  # something of ours failed in this turn
        self._event = asyncio.Event()  # something happened to a file
        self._moved = False  # or to the directory itself, so that it must be watched anew
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is not None:
            raise RuntimeError("the watcher is running already")
        self._event.clear()
        ready = asyncio.Event()
        task = self._task = asyncio.create_task(self._run(ready), name=f"watch {self._directory}")
        try:
            await ready.wait()
        except asyncio.CancelledError:
            await self.stop()
            raise
        if task.done() and not task.cancelled():
            task.result()  # raises why it ended

    async def stop(self) -> None:
        """Returns when nothing of the watcher runs any more; no callback comes after it."""
        task, self._task = self._task, None
        if task is not None:
            await _cancel(task)

    def look(self) -> None:
        """Has the rules read again now, whether or not they look changed."""
        self._event.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _run(self, ready: asyncio.Event) -> None:
        events = asyncio.create_task(self._watch())
        self._seen = None
        pause = 0.0
        try:
            while True:
                self._fault = False
                rest = self._poll_interval
                try:
                    if self._moved or events.done():
                        await _cancel(events)
                        self._moved = False
                        events = asyncio.create_task(self._watch())
                        await asyncio.sleep(0)  # lets it begin to watch before the directory is looked at
                    # Of ten thousand files a look is not free; events tell of changes meanwhile.
                    rest = max(rest, _LOOK_SHARE * await self._look_and_load(again=pause > 0))
                except Exception as error:
                    if not ready.is_set():
                        raise
                    self._failed("watching failed", error)
                ready.set()
                if self._fault:
                    rest = pause = min(max(2 * pause, self._poll_interval), self._longest_pause)
                else:
                    pause = 0.0
                    if self._moved:
                        continue
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._event.wait(), rest)
        finally:
            try:
                await _cancel(events)
            finally:
                ready.set()  # last, so that `start` finds this task done and raises why

    async def _look_and_load(self, *, again: bool) -> float:
        """Loads the rules if they look changed, or `again`. Returns the seconds of CPU time that the look cost."""
        happened = self._event.is_set()
        self._event.clear()
        # Before the load, so that what changes during it is seen as a change afterwards.
        now, took = await asyncio.to_thread(_look, self._directory)
        seen = self._seen
        if seen is None or happened or again or now != seen:
            if seen is None or now.directory != seen.directory:
                self._moved = seen is not None
            self._seen = now
            await self._load()
        return took

    async def _load(self) -> None:
        try:
            loaded = await beside(
                load_rules,
                self._directory,
                limits=self._limits,
                revision=self._revision + 1,
                cache=self._cache,
                between=Pauses(),
            )
        except RuleErrors as error:
            self._tell(error.problems)
        except Exception as error:
            self._failed("loading failed", error)
        else:
            await self._loaded(loaded)

    async def _loaded(self, loaded: Snapshot) -> None:
        before = self._in_force
        if self._problems is None and before is not None and before.digest == loaded.digest:
            return
        try:
            taken = self._on_loaded(loaded)
            if taken is not None:
                await taken
        except Exception as error:
            self._failed("what was loaded was not taken", error)
            return
        self._revision += 1
        self._in_force, self._problems = loaded, None
        if before is not None and before is not loaded:
            parts = before.ruleset.parts()
            del before
            await beside(let_go, parts)

    def _failed(self, what: str, error: Exception) -> None:
        """Tells of an exception of our own, from inside its `except`; the next turn tries again."""
        logger.exception("%s: %s", self._directory, what)
        self._count_fault()
        self._tell((Problem(self._directory, 0, 0, "", f"{what}: {error!r}"),))

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        if problems == self._problems:
            return
        self._problems = problems
        try:
            self._on_failed(problems)
        except Exception:
            logger.exception("%s: what is wrong with it was not taken", self._directory)
            self._problems = ()  # which no problems are equal to, so that they are told again
            self._count_fault()

    def _count_fault(self) -> None:
        self._fault = True
        try:
            self._on_fault()
        except Exception:
            logger.exception("%s: a failure of ours was not counted", self._directory)

    async def _watch(self) -> None:
        """Sets `_event` on every change; ends where the directory cannot be watched, and polling is left."""
        paths = self._watched_paths()
        if not paths:
            return
        try:
            async for changes in awatch(
                *paths,
                watch_filter=self._concerns_us,
                debounce=self._debounce_ms,
                step=max(1, self._debounce_ms // 4),
                recursive=False,
                ignore_permission_denied=True,
            ):
                if any(path == self._absolute for _, path in changes):
                    self._moved = True
                self._event.set()
        except Exception as error:
            # The kernel's limit of watches, or a directory that is gone in between. Never a reason to end.
            logger.info("no events from %s, only polling: %s", self._directory, error)
            await asyncio.sleep(self._poll_interval)

    def _watched_paths(self) -> list[str]:
        # The parent as well: it tells that the directory is created, removed, or a link that leads elsewhere now.
        return [path for path in (self._absolute, os.path.dirname(self._absolute)) if os.path.isdir(path)]

    def _concerns_us(self, _: Change, path: str) -> bool:
        if path == self._absolute:
            return True
        directory, name = os.path.split(path)
        # Hidden files are ours (lock, revision, files not yet in place); `..data` is a ConfigMap's.
        return directory == self._absolute and (not name.startswith(".") or name.startswith(".."))


class Fingerprint(tuple[object, ...]):
    """What a directory and its rule files look like from outside; equal as long as nothing was changed."""

    __slots__ = ()

    @property
    def directory(self) -> object:
        """Which directory it is; another one after it was removed and made again, or a link was swapped."""
        return self[0]


def fingerprint(directory: str) -> Fingerprint:
    """Never raises: what cannot be read is part of the picture."""
    try:
        status = os.stat(directory)
        names = sorted(name for name in os.listdir(directory) if is_rule_file(name))
    except OSError as error:
        return Fingerprint((("unreadable", error.errno),))
    files = (_file_fingerprint(os.path.join(directory, name)) for name in names)
    return Fingerprint(((status.st_dev, status.st_ino), *files))


def _look(directory: str) -> tuple[Fingerprint, float]:
    """The fingerprint, and the seconds of CPU time it cost."""
    began = time.thread_time()
    return fingerprint(directory), time.thread_time() - began


def _file_fingerprint(file: str) -> object:
    try:
        status = os.stat(file)
    except OSError as error:
        return (file, error.errno)
    return (file, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


async def _cancel(task: asyncio.Task[None]) -> None:
    """Returns when `task` has ended; raises only what the caller itself is stopped by."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is not None:
        logger.error("%s ended by itself", task.get_name(), exc_info=task.exception())
