"""Many rules: what they cost a request, how long they take to load, and what waits for a reload."""

from __future__ import annotations

import time
from pathlib import Path

from bench.figures import OURS, Metric
from bench.parts import http
from bench.parts.latency import Paced, quantile
from bench.programs import ProgramFailed
from bench.stage import Stage, Wrong, allowed_names
from bench.subjects import envoy, gateway, squid
from bench.subjects.subject import Running

NAME = "rules"
ABOUT = "many rules: a request, loading, and what waits for a reload"
FEW = Metric("rules_few", "HTTP request, few rules", "us CPU", 1)
MANY = Metric("rules_many", "HTTP request, many rules", "us CPU", 1)
GROWTH = Metric("rules_growth", "many rules against few", "x", 2, compared=False)
LOAD = Metric("rules_load", "loading rules", "CPU s", 2, compared=False)
WAIT = Metric("rules_wait", "wait for a reload, p99.9", "ms", 1, compared=False)
_RATE = 400
_FEW = 10


def run(stage: Stage) -> None:
    _requests(stage)
    _loading(stage)
    _reloading(stage)


def _requests(stage: Stage) -> None:
    others = [] if stage.scale.quick else [name for name in (squid.NAME, envoy.NAME) if name in stage.peers]
    for name in (gateway.NAME, *others):
        started: list[Running] = []
        try:
            for count in (_FEW, stage.scale.many_rules):
                started.append(stage.start(name, names=count))
                if not stage.scale.quick:
                    http.load(stage, started[-1].http, seconds=1)
            for _ in range(stage.scale.rounds):
                costs = []
                for subject in started:
                    costs.append(http.cost(stage, subject))
                for metric, value in zip((FEW, MANY, GROWTH), (*costs, costs[1] / costs[0]), strict=True):
                    stage.figures.add(metric, name, value)
                stage.say(f"{NAME}: {name}: {costs[0]:.4g} with {_FEW}, {costs[1]:.4g} with {stage.scale.many_rules:,}")
        except (Wrong, ProgramFailed) as error:
            stage.wrong.append(f"{NAME}: {name}: {error}")
            for metric in (FEW, MANY, GROWTH):
                stage.figures.add(metric, name, None)
        finally:
            for subject in started:
                subject.stop()


def _loading(stage: Stage) -> None:
    folder = stage.folder / "rules-to-load"
    folder.mkdir()
    gateway.write_rules(folder, allowed_names(stage.scale.reload_rules))
    for _ in range(stage.scale.rounds):
        seconds = stage.client("load_rules", folder)["seconds"]
        stage.figures.add(LOAD, OURS, seconds)
        stage.say(f"{NAME}: loading {stage.scale.reload_rules:,} took {seconds:.2f} s of CPU time")


def _reloading(stage: Stage) -> None:
    """From few rules to many and back while requests come in; each round is both."""
    try:
        subject = stage.start(gateway.NAME, names=_FEW)
    except ProgramFailed as error:
        stage.wrong.append(f"{NAME}: {error}")
        stage.figures.add(WAIT, OURS, None)
        return
    try:
        for _ in range(stage.scale.rounds):
            folder = subject.program.folder / "rules"
            with Paced(stage, subject.http, _RATE, stage.scale.reload_seconds) as both:
                time.sleep(0.5)
                since = time.monotonic()
                _change(subject, folder, stage.scale.reload_rules)
                _change(subject, folder, 0)
                until = time.monotonic()
                both.wait()
            proxied, straight = both.proxied(since, until), both.straight(since, until)
            if len(proxied) < 100:
                raise Wrong(f"only {len(proxied)} requests while rules were loaded")
            most, machine = quantile(proxied, 0.999) * 1e3, quantile(straight, 0.999) * 1e3
            stage.figures.add(WAIT, OURS, most - machine)
            stage.say(
                f"{NAME}: {until - since:.1f} s of reloads, {len(proxied)} requests: p99.9 {most:.1f} ms "
                f"(straight: {machine:.1f} ms), the longest {max(proxied) * 1e3:.1f} ms"
            )
    except (Wrong, ProgramFailed) as error:
        stage.wrong.append(f"{NAME}: reload: {error}")
        stage.figures.add(WAIT, OURS, None)
    finally:
        subject.stop()


def _change(subject: Running, folder: Path, count: int, timeout: float = 60) -> None:
    """Puts `count` rules beside the first few, and waits until they are in force."""
    if count:
        gateway.write_rules(folder, [f"more-{i}.example" for i in range(count)], "more")
    else:
        for path in folder.glob("more-*.yaml"):
            path.unlink()
    deadline = time.monotonic() + timeout
    while gateway.metric(subject, "egress_rules") != _FEW + count:
        if time.monotonic() > deadline:
            raise Wrong(f"{count} rules were not in force after {timeout:g} s")
        time.sleep(0.05)
