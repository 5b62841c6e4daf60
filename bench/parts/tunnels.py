"""New tunnels: CONNECT, a TLS handshake with the destination inside, one request, and the end."""

from __future__ import annotations

from bench import place
from bench.figures import Metric
from bench.origin import SMALL, SMALL_BODY
from bench.stage import Stage
from bench.subjects.subject import Running

NAME = "tunnels"
ABOUT = "new CONNECT tunnels with TLS inside"
TUNNEL = Metric("tunnels", "new tunnel, TLS inside", "us CPU", 0)


def run(stage: Stage) -> None:
    def measure(subject: Running) -> tuple[float]:
        used, tunnels = stage.cost(subject, lambda: load(stage, subject, stage.scale.seconds))
        return (used / tunnels * 1e6,)

    subjects = stage.all_that(lambda subject: subject.connect or subject.sni)
    stage.in_turn(NAME, [TUNNEL], subjects, measure, lambda subject: load(stage, subject, 0.5))


def load(stage: Stage, subject: Running, seconds: float, count: int = 0) -> float:
    """Tunnels that succeeded."""
    limits = ["--seconds", seconds, "--count", count]
    good: float = stage.client("tunnels", *through(stage, subject), *SMALL_ONE, *limits)["good"]
    return good


def through(stage: Stage, subject: Running, host: str = place.TLS, port: int = 443) -> list[str | int]:
    """Arguments of the clients: how to go through this subject, and where to."""
    way: list[str | int] = ["--proxy", subject.connect or subject.sni]
    if not subject.connect:
        way.append("--sni-only")
    return [*way, "--host", host, "--port", port, "--ca", str(stage.origin.ca)]


SMALL_ONE = ("--path", SMALL, "--body", SMALL_BODY)
"""Arguments of the clients: what to fetch, and what it is."""
