"""What must hold, and what we would like: the targets of docs/performance.md, judged from the figures of one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import OURS, Figures

PEERS = ("squid", "envoy", "haproxy")
"""Those whose best counts in "the best peer"; mitmdump is not one, since we are made of it."""

_MUST_ADD = 2.0  # milliseconds

type Measure = Callable[[Figures], float | None]
"""None: this run has no figure for it."""


@dataclass(frozen=True, slots=True)
class Target:
    part: str
    text: str
    """What the figure is."""
    measure: Measure
    must: float
    want: float | None = None
    at_least: bool = False
    """The bounds are the least, instead of the most."""
    ratio: bool = True
    """A ratio within a run, which says the same on a slow machine."""
    digits: int = 2

    def meets(self, figure: float, bound: float, slack: float = 1.0) -> bool:
        if self.at_least:
            return figure >= bound / slack
        return figure <= (bound * slack if bound > 0 else bound)


@dataclass(frozen=True, slots=True)
class Judgement:
    target: Target
    figure: float | None
    holds: bool | None
    """None: not measured, which is not the same as held."""
    wanted: bool | None
    """Whether it is even what we would like."""


def judge(figures: Figures, parts: Sequence[str], slack: float = 1.0, quick: bool = False) -> list[Judgement]:
    """Of the parts that were run. `slack` widens every bound of a `must`, for machines that are busy otherwise.

    In a quick run only ratios are judged: there is too little of everything else.
    """
    return [
        _judge(target, figures, slack) for target in TARGETS if target.part in parts and (target.ratio or not quick)
    ]


def _judge(target: Target, figures: Figures, slack: float) -> Judgement:
    figure = target.measure(figures)
    if figure is None:
        return Judgement(target, None, None, None)
    wanted = target.meets(figure, target.want) if target.want is not None else None
    return Judgement(target, figure, target.meets(figure, target.must, slack), wanted)


# --- figures ---


def to(key: str, peer: str) -> Measure:
    """Ours in the peer's, in the same round."""

    def measure(figures: Figures) -> float | None:
        metric = figures.find(key)
        return None if metric is None else figures.ratio(metric, peer)

    return measure


def to_the_best(key: str, peers: Sequence[str] = PEERS) -> Measure:
    """Ours in that of the cheapest peer, in each round; None unless all of the peers were measured."""

    def measure(figures: Figures) -> float | None:
        metric = figures.find(key)
        if metric is None or any(figures.median(metric, each) is None for each in (OURS, *peers)):
            return None
        rounds = zip(*(figures.ratios(metric, peer) for peer in peers), strict=True)
        found: float = statistics.median(max(ratio for ratio in each if ratio is not None) for each in rounds)
        return found

    return measure


def own(key: str) -> Measure:
    """The median itself."""

    def measure(figures: Figures) -> float | None:
        metric = figures.find(key)
        return None if metric is None else figures.median(metric, OURS)

    return measure


def _added_latency(figures: Figures) -> float | None:
    """None on a machine so busy that requests wait as long without a proxy."""
    added, straight = own("latency_p99")(figures), own("latency_straight")(figures)
    return added if straight is not None and straight < _MUST_ADD else None


def _grown(figures: Figures) -> float | None:
    """MiB."""
    grown = own("soak_memory")(figures)
    return None if grown is None else grown / 1024


TARGETS: tuple[Target, ...] = (
    Target("http", "HTTP request: of Squid's CPU", to("http", "squid"), 1.0, 0.7),
    Target("http", "HTTP request: of Envoy's CPU", to("http", "envoy"), 1.0, 0.7),
    Target("originate", "TLS origination: of Envoy's CPU", to("originate", "envoy"), 1.0, 0.7),
    Target("tunnels", "new tunnel: of Envoy's CPU", to("tunnels", "envoy"), 1.5, 1.0),
    Target("tunnels", "new tunnel: of mitmdump's CPU", to("tunnels", "mitmdump"), 0.25),
    Target("bytes", "bytes down: of the best peer's CPU", to_the_best("bytes_down"), 0.7, 0.5),
    Target("bytes", "bytes up: of the best peer's CPU", to_the_best("bytes_up"), 0.7, 0.5),
    Target("idle", "idle tunnel, KiB", own("idle"), 10, 4, ratio=False, digits=1),
    Target("latency", "added latency, p99, ms", _added_latency, _MUST_ADD, 1, ratio=False),
    Target("workers", "what two workers serve, of one", own("workers_scaling"), 1.8, at_least=True),
    Target("decide", "a decision, many rules, us", own("decide_many"), 5, 2, ratio=False),
    Target("decide", "a decision: many rules, of few", own("decide_growth"), 1.5),
    Target("decide", "a decision, of what making its request costs", own("decide_makings"), 8, digits=1),
    Target("rules", "HTTP request: many rules, of few", own("rules_growth"), 1.25),
    Target("rules", "loading rules, CPU s", own("rules_load"), 2, 0.7, ratio=False),
    Target("rules", "wait for a reload, p99.9, ms", own("rules_wait"), 20, ratio=False, digits=1),
    Target("soak", "memory grown, MiB", _grown, 4, ratio=False, digits=1),
    Target("soak", "descriptors left open", own("soak_open"), 0, ratio=False, digits=0),
    Target("soak", "connections still counted", own("soak_connections"), 0, ratio=False, digits=0),
    Target("crowd", "idle tunnels that all work", own("crowd_idle"), 1, at_least=True, ratio=False, digits=0),
)
