"""Two workers of one gateway, and two gateways of one worker each: what it costs workers to be two."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bench import accounts
from bench.figures import OURS, Metric
from bench.parts import http
from bench.programs import ProgramFailed
from bench.stage import SETTLING, Stage, Wrong
from bench.subjects import gateway
from bench.subjects.subject import Running

NAME = "workers"
ABOUT = "two workers against two gateways of one"
APART = Metric("workers_one", "HTTP request, two gateways of one worker", "us CPU", 1, compared=False)
TOGETHER = Metric("workers_two", "HTTP request, one gateway of two workers", "us CPU", 1, compared=False)
SCALING = Metric("workers_scaling", "what two serve, by CPU", "x one", 2, compared=False)
RATE = Metric("workers_rate", "requests/s of two workers, of two gateways", "x", 2, compared=False)
BUSIER = Metric("workers_busier", "share of the busier worker", "", 2, compared=False)
_LOADS = 2
"""For each worker. Where all that one serves comes from one program, it comes in larger batches, which are cheaper to
serve; and of two workers each has connections of all programs."""
_CONNECTIONS = 32
"""Of each load."""
_TIMES = 3
"""Rounds in place of one, since four programs on two cores are not alike from second to second."""


def run(stage: Stage) -> None:
    """Where the load has to share the cores with the workers, requests per second say little, and what a single worker
    costs says as little: it has a core of its own. So both have the same load on the same busy cores."""
    started: list[Running] = []
    metrics = (APART, TOGETHER, SCALING, RATE, BUSIER)
    try:
        if not gateway.takes_workers(stage.programs[gateway.NAME]):
            raise Wrong("this gateway has no --workers")
        for workers in (1, 1, 2):
            started.append(stage.start(gateway.NAME, workers=workers))
            http.load(stage, started[-1].http, seconds=1)
        for number in range(_TIMES * stage.scale.rounds):
            sides = {"apart": started[:2], "together": started[2:]}
            costs = {side: _cost(stage, sides[side]) for side in sorted(sides, reverse=number % 2 == 1)}
            apart, apart_done, _ = costs["apart"]
            together, together_done, busier = costs["together"]
            values = (apart, together, 2 * apart / together, together_done / apart_done, busier)
            for metric, value in zip(metrics, values, strict=True):
                stage.figures.add(metric, OURS, value)
            stage.say(
                f"{NAME}: round {number + 1} of {_TIMES * stage.scale.rounds}: " + "/".join(f"{v:.4g}" for v in values)
            )
    except (Wrong, ProgramFailed) as error:
        stage.wrong.append(f"{NAME}: {error}")
        for metric in metrics:
            stage.figures.add(metric, OURS, None)
    finally:
        for subject in started:
            subject.stop()


def _cost(stage: Stage, gateways: Sequence[Running]) -> tuple[float, float, float]:
    """Microseconds a request, requests, and the busiest process's share, under all loads at once."""
    before = _used(gateways)
    ports = [gateways[0].http, gateways[-1].http] * _LOADS
    with ThreadPoolExecutor(len(ports)) as pool:
        done = sum(pool.map(partial(http.load, stage, connections=_CONNECTIONS), ports))
    if not done:
        raise Wrong("nothing succeeded")
    time.sleep(SETTLING)
    after = _used(gateways)
    spent = [after[pid] - before.get(pid, 0.0) for pid in after]
    return sum(spent) / done * 1e6, done, max(spent) / sum(spent)


def _used(gateways: Sequence[Running]) -> dict[int, float]:
    used: dict[int, float] = {}
    for each in gateways:
        used |= accounts.cpu_by_process(each.program.pid)
    return used
