"""Plain requests that leave in verified TLS, over kept connections."""

from __future__ import annotations

from bench import place
from bench.figures import Metric
from bench.origin import SMALL
from bench.stage import Stage
from bench.subjects.subject import Running

NAME = "originate"
ABOUT = "plain requests that leave in verified TLS, over kept connections"
REQUEST = Metric("originate", "request with TLS origination", "us CPU", 1)


def run(stage: Stage) -> None:
    def measure(subject: Running) -> tuple[float]:
        used, requests = stage.cost(subject, lambda: load(stage, subject.originate))
        return (used / requests * 1e6,)

    subjects = stage.all_that(lambda subject: subject.originate)
    stage.in_turn(NAME, [REQUEST], subjects, measure, lambda subject: load(stage, subject.originate, seconds=1))


def load(stage: Stage, port: int, *, seconds: float = 0) -> float:
    """Requests that succeeded."""
    authority = f"{place.TLS}:443"
    good: float = stage.wrk(port, f"http://{authority}{SMALL}", authority, seconds=seconds)["good"]
    return good
