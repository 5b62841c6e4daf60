"""What the way through a proxy adds to the time of a request, at a hundred requests a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from bench import place
from bench.figures import Metric
from bench.origin import SMALL, SMALL_BODY
from bench.stage import Stage, result_of
from bench.subjects.subject import Running

NAME = "latency"
ABOUT = "latency added at 100 requests a second"
MEDIAN = Metric("latency_median", "added latency, median, 100 req/s", "ms", 2, compared=False)
P99 = Metric("latency_p99", "added latency, p99, 100 req/s", "ms", 2, compared=False)
STRAIGHT = Metric("latency_straight", "straight beside it, p99", "ms", 2, compared=False)
"""What the machine makes of it without a proxy: where this is large, the line above is noise."""
_RATE = 100


def run(stage: Stage) -> None:
    """The same requests go straight to the origin at the same time: what the machine adds is subtracted."""

    def measure(subject: Running) -> tuple[float, float, float]:
        with Paced(stage, subject.http, _RATE, stage.scale.latency_seconds) as both:
            both.wait()
        proxied, straight = both.proxied(), both.straight()
        return (
            (quantile(proxied, 0.5) - quantile(straight, 0.5)) * 1e3,
            (quantile(proxied, 0.99) - quantile(straight, 0.99)) * 1e3,
            quantile(straight, 0.99) * 1e3,
        )

    stage.in_turn(NAME, [MEDIAN, P99, STRAIGHT], stage.all_that(lambda subject: subject.http), measure)


class Paced:
    """Two clients at the same pace, one through a proxy and one straight to the origin, running in the block."""

    def __init__(self, stage: Stage, port: int, rate: float, seconds: float) -> None:
        what = ["--host", place.WWW, "--path", SMALL, "--body", SMALL_BODY, "--rate", rate, "--seconds", seconds]
        self._seconds = seconds
        self._clients = [stage.background("paced", f"paced-{end}", "--proxy", end, *what) for end in (port, 0)]
        self._taken: list[list[tuple[float, float]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.stop()

    def wait(self) -> None:
        """Until both have ended; Wrong where an answer was."""
        for client in self._clients:
            client.wait(self._seconds + 60)
            self._taken.append(result_of(client.last_words())["taken"])

    def proxied(self, since: float = 0, until: float = math.inf) -> list[float]:
        """Seconds of the requests that were due in this time."""
        return [seconds for due, seconds in self._taken[0] if since <= due <= until]

    def straight(self, since: float = 0, until: float = math.inf) -> list[float]:
        return [seconds for due, seconds in self._taken[1] if since <= due <= until]


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest of the values that at least this part of them does not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]
