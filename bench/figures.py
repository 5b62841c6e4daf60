"""What was measured: each figure by subject and round; medians, and ratios within each round."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

OURS = "gateway"


@dataclass(frozen=True, slots=True)
class Metric:
    """One sort of figure; less is better."""

    key: str
    title: str
    unit: str
    digits: int = 0
    """After the point, in tables."""
    compared: bool = True
    """Whether a ratio to others makes sense."""


@dataclass(slots=True)
class Figures:
    """Every subject has a value for each round; where it failed in that round, it is None."""

    by_metric: dict[Metric, dict[str, list[float | None]]] = field(default_factory=dict)

    def add(self, metric: Metric, subject: str, value: float | None) -> None:
        self.by_metric.setdefault(metric, {}).setdefault(subject, []).append(value)

    def metrics(self) -> Iterator[Metric]:
        yield from self.by_metric

    def find(self, key: str) -> Metric | None:
        return next((metric for metric in self.by_metric if metric.key == key), None)

    def subjects(self, metric: Metric) -> list[str]:
        return list(self.by_metric[metric])

    def rounds(self, metric: Metric, subject: str) -> list[float | None]:
        return self.by_metric.get(metric, {}).get(subject, [])

    def median(self, metric: Metric, subject: str) -> float | None:
        """None where a round is void: half a figure is none."""
        return _median(self.rounds(metric, subject))

    def ratios(self, metric: Metric, peer: str, subject: str = OURS) -> list[float | None]:
        """What `subject` took, in what `peer` took in the same round."""
        pairs = zip(self.rounds(metric, subject), self.rounds(metric, peer), strict=False)
        return [ours / theirs if ours is not None and theirs else None for ours, theirs in pairs]

    def ratio(self, metric: Metric, peer: str, subject: str = OURS) -> float | None:
        return _median(self.ratios(metric, peer, subject))


def _median(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.median(present) if present and len(present) == len(values) else None
