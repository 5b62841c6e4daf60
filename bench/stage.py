"""What the parts need: the place, the origins, subjects, and how to measure one."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import accounts, place
from bench.figures import Figures, Metric
from bench.origin import ROOT, SMALL_BODY, Origin
from bench.programs import Program, ProgramFailed, run
from bench.subjects import envoy, gateway, haproxy, mitmdump, squid
from bench.subjects.subject import Running, Setting, Start

SUBJECTS: Mapping[str, Start] = {
    gateway.NAME: gateway.start,
    squid.NAME: squid.start,
    envoy.NAME: envoy.start,
    haproxy.NAME: haproxy.start,
    mitmdump.NAME: mitmdump.start,
    haproxy.SPLICING: haproxy.start_splicing,
}
_PORTS_EACH = 10
SETTLING = 0.1
"""Seconds after a load in which connections end and logs are written; they are part of the cost."""

_TRIES = 3
"""A second may be too short for the first answer, where the machine is busy otherwise."""


class Wrong(Exception):
    """Somebody answered wrongly, so that a figure counts for nothing."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    rounds: int
    seconds: float
    """Of load for a subject and round."""
    gib: float
    """To move in each direction for a subject and round."""
    latency_seconds: float
    idle: int
    """Tunnels held open."""
    soak_requests: int
    soak_tunnels: int
    rules: int
    """Names allowed in the parts that are not about their number."""
    many_rules: int
    reload_rules: int
    reload_seconds: float
    """Of requests during reloads; long enough for two."""
    crowd_idle: int
    crowd_busy: int
    crowd_seconds: float
    quick: bool = False


@dataclass(slots=True)
class Stage:
    folder: Path
    programs: Mapping[str, str]
    origin: Origin
    scale: Scale
    peers: tuple[str, ...]
    log: bool
    say: Callable[[str], None]
    figures: Figures = field(default_factory=Figures)
    wrong: list[str] = field(default_factory=list)
    """What makes the run fail."""
    _started: int = 0
    _kept: dict[str, Running | None] = field(default_factory=dict)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    # Subjects.

    def start(self, name: str, *, names: int = 0, workers: int = 1) -> Running:
        """A new one that allows so many names; the caller stops it."""
        self._started += 1
        folder = self.folder / f"{name}-{self._started}"
        folder.mkdir()
        folder.chmod(0o755)
        setting = Setting(
            folder=folder,
            ca=self.origin.ca,
            names=allowed_names(names or self.scale.rules),
            log=self.log,
            port=10_000 - self._started * _PORTS_EACH,
            workers=workers,
        )
        return SUBJECTS[name](self.programs, setting)

    def all_that(self, can: Callable[[Running], int]) -> list[Running]:
        """The gateway and its peers, those that can do something; each is started once, and stays to the end.

        One that does not start is a wrong, once.
        """
        for name in (gateway.NAME, *self.peers):
            if name not in self._kept:
                try:
                    subject = self._kept[name] = self.start(name)
                except ProgramFailed as error:
                    self._kept[name] = None
                    self.wrong.append(str(error))
                else:
                    self._stack.callback(subject.stop)
        return [subject for subject in self._kept.values() if subject is not None and can(subject)]

    def close(self) -> None:
        self._stack.close()

    # Measuring.

    def in_turn(
        self,
        part: str,
        metrics: Sequence[Metric],
        subjects: Sequence[Running],
        measure: Callable[[Running], Sequence[float]],
        warm: Callable[[Running], object] | None = None,
    ) -> None:
        """Every subject in every round, in an order that changes from round to round.

        `measure` gives a value for each of the metrics. Where it fails, the subject has none in that round.
        """

        def warm_up(subject: Running) -> Sequence[float]:
            if warm is not None and not self.scale.quick:
                warm(subject)
            return ()

        warmed = [subject for subject in subjects if self._attempt(part, metrics, subject, warm_up) is not None]
        for number in range(self.scale.rounds):
            shift = number % len(warmed) if warmed else 0
            told = []
            for subject in (*warmed[shift:], *warmed[:shift]):
                values = self._attempt(part, metrics, subject, measure)
                if values is not None:
                    for metric, value in zip(metrics, values, strict=True):
                        self.figures.add(metric, subject.name, value)
                    told.append(f"{subject.name} " + "/".join(f"{value:.4g}" for value in values))
            self.say(f"{part}: round {number + 1} of {self.scale.rounds}: {', '.join(told)}")

    def _attempt(
        self, part: str, metrics: Sequence[Metric], subject: Running, act: Callable[[Running], Sequence[float]]
    ) -> Sequence[float] | None:
        """What `act` gives; None where it fails, which is noted."""
        try:
            values = act(subject)
            subject.program.check()
        except (Wrong, ProgramFailed) as error:
            self.wrong.append(f"{part}: {subject.name}: {error}")
            for metric in metrics:
                self.figures.add(metric, subject.name, None)
            return None
        return values

    def cost(self, subject: Running, load: Callable[[], float]) -> tuple[float, float]:
        """Seconds of CPU time that `load` took of the subject, and the operations that it did."""
        before = accounts.cpu_seconds(subject.program.pid)
        operations = load()
        time.sleep(SETTLING)
        used = accounts.cpu_seconds(subject.program.pid) - before
        if operations <= 0:
            raise Wrong("nothing succeeded")
        return used, operations

    # Load.

    def wrk(self, port: int, uri: str, host: str, *, connections: int = 32, seconds: float = 0) -> dict[str, Any]:
        """What requests.lua says; Wrong unless all answers were right."""
        lasting = max(1, round(seconds or self.scale.seconds))
        script = ROOT / "bench" / "clients" / "requests.lua"
        command = [
            self.programs["wrk"],
            "-t1",
            f"-c{connections}",
            f"-d{lasting}s",
            "--timeout",
            "60s",
            "-s",
            str(script),
        ]
        command += [f"http://127.0.0.1:{port}/", "--", uri, host, SMALL_BODY]
        tries = 1
        while not (result := result_of(run("wrk", command, self.folder, lasting + 120)))["good"] and tries < _TRIES:
            tries += 1
        return result

    def client(self, module: str, *arguments: object, timeout: float = 600) -> dict[str, Any]:
        """What a client of ours says; Wrong unless all answers were right."""
        return result_of(run(module, _client(module, arguments), self.folder, timeout))

    def background(self, module: str, name: str, *arguments: object) -> Program:
        """A client of ours that runs beside; its last words are its result."""
        return Program(name, _client(module, arguments), self.folder)


def _client(module: str, arguments: Sequence[object]) -> list[str]:
    return ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", f"bench.clients.{module}", *map(str, arguments)]


def result_of(output: str) -> dict[str, Any]:
    """The object in the last line of what a client printed; Wrong where an answer was."""
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    if result["wrong"]:
        raise Wrong(f"{result['wrong']} of {result['wrong'] + result['good']} went wrong: {result['examples']}")
    return result


def allowed_names(count: int) -> tuple[str, ...]:
    """`count` names, those of the bench among them and not the first."""
    ours = (place.WWW, place.TLS, place.UP)
    others = max(0, count - len(ours))
    names = [f"service-{i:06}.team-{i % 97}.example" for i in range(others)]
    middle = others // 2
    return (*names[:middle], *ours, *names[middle:])
