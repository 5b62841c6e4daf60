"""Many bytes through tunnels, down and up, every one of them compared."""

from __future__ import annotations

from bench import place
from bench.figures import Metric
from bench.origin import BIG
from bench.parts.tunnels import through
from bench.stage import Stage
from bench.subjects.subject import Running

NAME = "bytes"
ABOUT = "bytes through tunnels, down and up, content checked"
DOWN = Metric("bytes_down", "passthrough, down", "CPU s per GiB", 3)
UP = Metric("bytes_up", "passthrough, up", "CPU s per GiB", 3)
_GIB = 1 << 30
_WARM = 0.01


def run(stage: Stage) -> None:
    def cost(direction: str, subject: Running, gib: float) -> float:
        used, moved = stage.cost(subject, lambda: _load(stage, direction, subject, gib))
        return used / (moved / _GIB)

    def measure(subject: Running) -> tuple[float, float]:
        return cost("down", subject, stage.scale.gib), cost("up", subject, stage.scale.gib)

    subjects = stage.all_that(lambda subject: subject.connect or subject.sni)
    stage.in_turn(NAME, [DOWN, UP], subjects, measure, lambda subject: cost("down", subject, _WARM))


def _load(stage: Stage, direction: str, subject: Running, gib: float) -> float:
    """Bytes that were moved."""
    to = (place.TLS, 443) if direction == "down" else (place.UP, place.UP_PORT)
    arguments = ["--path", BIG, "--content", stage.origin.content, "--bytes", int(gib * _GIB)]
    moved: float = stage.client("transfer", direction, *through(stage, subject, *to), *arguments)["good"]
    return moved
