"""Counters and histograms that cost next to nothing, and their text format.

prometheus_client's own take a lock for each update and 15 µs for each line of a scrape, which at a few
hundred rules holds the interpreter for longer than a request may take. These are plain numbers in
`__slots__`.

The rules of this file:

- One thread counts. Any thread may render: it sees each number as it was at some moment of the rendering.
- A series is found once, by its label values, and then kept by whoever counts in it.
- Values of labels come from a bounded set. Should they not, a family with a `limit` counts the rest as
  `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol


class Series(Protocol):
    def lines(self, name: str, labels: str) -> Iterator[str]:
        """The lines of the text format; `labels` is the escaped list without its braces."""


class Number:
    """The value of a counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def lines(self, name: str, labels: str) -> Iterator[str]:
        yield f"{name}{{{labels}}} {self.value}\n" if labels else f"{name} {self.value}\n"


class Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        before = f"{labels}," if labels else ""
        below = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{{before}le="{bound}"}} {below}\n'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self.total}\n"
        yield f"{name}_count{braces} {below}\n"


class Family[S: Series]:
    """All series of one name."""

    def __init__(
        self,
        name: str,
        kind: Literal["counter", "gauge", "histogram"],
        text: str,
        make: Callable[[], S],
        labels: Sequence[str] = (),
        *,
        limit: int | None = None,
    ) -> None:
        self.name = name
        self.labels = tuple(labels)
        self._head = f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
        self._make = make
        self._limit = limit
        self._series: dict[tuple[str, ...], tuple[str, S]] = {}

    def at(self, *values: str) -> S:
        """The series with these label values, made if there is none. Keep it, rather than ask every time."""
        found = self._series.get(values)
        if found is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, not {len(values)} values")
            if self._limit is not None and len(self._series) >= self._limit:
                values = ("other",) * len(values)
            pairs = zip(self.labels, values, strict=True)
            escaped = ",".join(f'{label}="{_escape(value)}"' for label, value in pairs)
            found = self._series.setdefault(values, (escaped, self._make()))
        return found[1]

    def keep(self, wanted: Callable[[tuple[str, ...]], bool]) -> None:
        """Forgets the series whose label values are not `wanted`."""
        self._series = {values: found for values, found in self._series.items() if wanted(values)}

    def render(self) -> Iterator[str]:
        yield self._head
        for labels, series in list(self._series.values()):
            yield from series.lines(self.name, labels)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
