"""Memory of tunnels on which nothing moves: opened, used once, held, and used once more."""

from __future__ import annotations

import time
from pathlib import Path

from bench import accounts
from bench.figures import Metric
from bench.parts import tunnels
from bench.programs import Program, ProgramFailed
from bench.stage import Stage, Wrong, result_of
from bench.subjects.subject import Running

NAME = "idle"
ABOUT = "memory of an idle tunnel"
TUNNEL = Metric("idle", "idle tunnel", "KiB", 1)
_PATIENCE = 300.0


def run(stage: Stage) -> None:
    """A new process each time: one that has had many tunnels would have room for these already."""

    def measure(running: Running) -> tuple[float]:
        subject = stage.start(running.name)
        try:
            tunnels.load(stage, subject, 30, count=100)
            before = accounts.proportional_kib(subject.program.pid)
            with Held(stage, subject, stage.scale.idle):
                grown = accounts.proportional_kib(subject.program.pid) - before
            return (grown / stage.scale.idle,)
        finally:
            subject.stop()

    stage.in_turn(NAME, [TUNNEL], stage.all_that(lambda subject: subject.connect or subject.sni), measure)


class Held:
    """Tunnels that are held open in the block, and used once more at its end: Wrong where one does not work then."""

    def __init__(self, stage: Stage, subject: Running, count: int) -> None:
        self._ready = stage.folder / f"held-{subject.name}-{time.monotonic_ns()}"
        arguments = [*tunnels.through(stage, subject), *tunnels.SMALL_ONE, "--count", count, "--ready", self._ready]
        self._program = stage.background("holder", f"holder-{subject.name}", *arguments)

    def __enter__(self) -> Program:
        try:
            self._wait(self._ready)
        except BaseException:
            self._program.stop()
            raise
        return self._program

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._ready.unlink()
                self._program.wait(_PATIENCE)
                result_of(self._program.last_words())
        finally:
            self._program.stop()

    def _wait(self, path: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not path.exists():
            try:
                self._program.check()
            except ProgramFailed as error:
                raise Wrong(str(error)) from error
            if time.monotonic() > deadline:
                raise Wrong(f"the tunnels were not open within {_PATIENCE:g} s")
            time.sleep(0.02)
