"""One worker and two: what a request costs, and what that lets two serve."""

from __future__ import annotations

from bench import accounts
from bench.figures import OURS, Metric
from bench.parts import http
from bench.programs import ProgramFailed
from bench.stage import Stage, Wrong
from bench.subjects import gateway

NAME = "workers"
ABOUT = "two workers against one"
ONE = Metric("workers_one", "HTTP request, one worker", "us CPU", 1, compared=False)
TWO = Metric("workers_two", "HTTP request, two workers", "us CPU", 1, compared=False)
SCALING = Metric("workers_scaling", "what two serve, by CPU", "x one", 2, compared=False)
RATE = Metric("workers_rate", "requests/s of two", "x one", 2, compared=False)
BUSIER = Metric("workers_busier", "share of the busier worker", "", 2, compared=False)
_CONNECTIONS = 64


def run(stage: Stage) -> None:
    """Where the load has to share the cores with the workers, requests per second say nothing: what two could serve
    follows from what a request costs them, as long as both have the same part of the work."""
    started = []
    metrics = (ONE, TWO, SCALING, RATE, BUSIER)
    try:
        if not gateway.takes_workers(stage.programs[gateway.NAME]):
            raise Wrong("this gateway has no --workers")
        for count in (1, 2):
            started.append(stage.start(gateway.NAME, workers=count))
            http.load(stage, started[-1].http, seconds=1)
        for number in range(stage.scale.rounds):
            costs, rates, busier = [], [], 0.0
            for subject in started:
                pid = subject.program.pid
                before = accounts.cpu_by_process(pid)
                done: dict[str, float] = {}

                def load(port: int = subject.http, done: dict[str, float] = done) -> float:
                    done["requests"] = http.load(stage, port, connections=_CONNECTIONS)
                    return done["requests"]

                used, requests = stage.cost(subject, load)
                costs.append(used / requests * 1e6)
                rates.append(requests / max(1, round(stage.scale.seconds)))
                after = accounts.cpu_by_process(pid)
                spent = sorted((after[each] - before.get(each, 0.0) for each in after), reverse=True)
                busier = spent[0] / sum(spent)
            values = (costs[0], costs[1], 2 * costs[0] / costs[1], rates[1] / rates[0], busier)
            for metric, value in zip(metrics, values, strict=True):
                stage.figures.add(metric, OURS, value)
            stage.say(f"{NAME}: round {number + 1} of {stage.scale.rounds}: " + "/".join(f"{v:.4g}" for v in values))
    except (Wrong, ProgramFailed) as error:
        stage.wrong.append(f"{NAME}: {error}")
        for metric in metrics:
            stage.figures.add(metric, OURS, None)
    finally:
        for subject in started:
            subject.stop()
