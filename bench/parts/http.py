"""HTTP requests to a proxy over kept connections."""

from __future__ import annotations

from bench import place
from bench.figures import Metric
from bench.origin import SMALL
from bench.stage import Stage
from bench.subjects.subject import Running

NAME = "http"
ABOUT = "HTTP requests over kept connections"
REQUEST = Metric("http", "HTTP request, keep-alive", "us CPU", 1)


def run(stage: Stage) -> None:
    def measure(subject: Running) -> tuple[float]:
        return (cost(stage, subject),)

    subjects = stage.all_that(lambda subject: subject.http)
    stage.in_turn(NAME, [REQUEST], subjects, measure, lambda subject: load(stage, subject.http, seconds=1))


def cost(stage: Stage, subject: Running) -> float:
    """Microseconds a request."""
    used, requests = stage.cost(subject, lambda: load(stage, subject.http))
    return used / requests * 1e6


def load(stage: Stage, port: int, *, seconds: float = 0, connections: int = 32) -> float:
    """Requests that succeeded."""
    uri = f"http://{place.WWW}{SMALL}"
    good: float = stage.wrk(port, uri, place.WWW, seconds=seconds, connections=connections)["good"]
    return good
