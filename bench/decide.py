"""What one decision costs with 10, 1,000 and 100,000 rules, and how long rules take to load.

The promise: deciding costs with 100,000 rules what it costs with 10, and no more than eight times what it costs to
make the request that is decided about, over all kinds of questions. That is 4 microseconds where making one costs 0.5,
and holds on a slower or busier machine as well.

- The rules of every size are of the same kinds in the same proportions, and the same number of different hosts is
  asked for, so that nothing but the number of rules differs. `100,000 varied` is for information: it also has many
  prefix lengths and many lengths of wildcards that begin inside a label.
- CPU time, not wall time, and ratios within a round, in which the sizes take turns: both hardly move with a busy
  neighbour. Every verdict is checked before anything is measured.
- `making` only makes requests, `reused` asks with some that are there already, `fresh` makes each one and asks, as the
  data path does. What the loop itself costs (about 0.02 microseconds) is part of the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from egress_gateway import compiled

if __name__ == "__main__":
    compiled.use()  # before the imports below, which are taken as the gateway takes them

from bench._questions import Decide, Kind, check, make_document, make_kinds, make_ruleset
from egress_gateway.config.load import load_rules
from egress_gateway.policy.decide import decide as policy_decide
from egress_gateway.policy.request import Request
from egress_gateway.policy.ruleset import RuleSet

MOST_RATIO = 1.5  # as in bench/targets.py, and so is the next
MOST_MAKINGS = 8.0
SMALL, LARGE = "10", "100,000"
MAKING = "making"
DECIDING = ("reused", "fresh")
MODES = (MAKING, *DECIDING)
MIX = "all kinds"

type Figures = dict[str, dict[str, dict[str, float]]]
"""Microseconds by size, mode and kind."""


# --- measuring ---


def measure(decide: Decide, ruleset: RuleSet, kinds: Sequence[Kind], repeat: int) -> dict[str, dict[str, float]]:
    """Microseconds of CPU time a decision, by mode and kind."""
    figures: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
    for kind in kinds:
        requests = kind.requests
        facts = [_facts(request) for request in requests]
        started = time.process_time()
        for _ in range(repeat):
            for request in requests:
                decide(ruleset, request)
        between = time.process_time()
        for _ in range(repeat):
            for each in facts:
                decide(ruleset, Request(*each))
        decided = time.process_time()
        for _ in range(repeat):
            for each in facts:
                Request(*each)
        ended = time.process_time()
        scale = 1e6 / (repeat * len(requests))
        figures["reused"][kind.name] = (between - started) * scale
        figures["fresh"][kind.name] = (decided - between) * scale
        figures[MAKING][kind.name] = (ended - decided) * scale
    for mode in MODES:
        figures[mode][MIX] = statistics.fmean(figures[mode].values())
    return figures


def _facts(request: Request) -> tuple[Any, ...]:
    return tuple(getattr(request, each.name) for each in fields(Request))


def run(decide: Decide, rounds: int, repeat: int) -> list[Figures]:
    """The figures of each round; in each, the sizes take turns."""
    sizes = {
        SMALL: make_ruleset(10),
        "1,000": make_ruleset(1_000),
        LARGE: make_ruleset(100_000),
        f"{LARGE} varied": make_ruleset(100_000, varied=True),
    }
    kinds = {size: make_kinds(ruleset) for size, ruleset in sizes.items()}
    for size, ruleset in sizes.items():
        check(decide, ruleset, kinds[size])
        measure(decide, ruleset, kinds[size], 1)  # fills the caches of verdicts, as the first requests would
    return [
        {size: measure(decide, ruleset, kinds[size], repeat) for size, ruleset in sizes.items()} for _ in range(rounds)
    ]


def load(count: int) -> dict[str, float]:
    """Seconds to load `count` rules from files of a hundred; informative."""
    with tempfile.TemporaryDirectory(prefix="bench-decide-") as folder:
        for first in range(0, count, 100):
            text = "---\n".join(make_document(i) for i in range(first, min(first + 100, count)))
            Path(folder, f"{first:06}.yaml").write_text(text, encoding="utf-8")
        wall, cpu = time.perf_counter(), time.process_time()
        loaded = load_rules(folder)
        figures = {"rules": len(loaded.ruleset.rules), "seconds": time.perf_counter() - wall}
        return figures | {"cpu_seconds": time.process_time() - cpu}


# --- telling ---


@dataclass(frozen=True, slots=True)
class Result:
    """Medians over the rounds; what the promise is about is the mean of all kinds."""

    rounds: int
    microseconds: Figures
    ratio: Figures
    """To the figure for ten rules in the same round."""
    load: dict[str, float] | None

    @classmethod
    def of(cls, rounds: Sequence[Figures], loaded: dict[str, float] | None) -> Result:
        def medians(figure: Callable[[Figures, str, str, str], float]) -> Figures:
            first = rounds[0]
            return {
                size: {
                    mode: {
                        kind: statistics.median(figure(each, size, mode, kind) for each in rounds)
                        for kind in first[size][mode]
                    }
                    for mode in MODES
                }
                for size in first
            }

        return cls(
            rounds=len(rounds),
            microseconds=medians(lambda each, size, mode, kind: each[size][mode][kind]),
            ratio=medians(lambda each, size, mode, kind: each[size][mode][kind] / each[SMALL][mode][kind]),
            load=loaded,
        )

    def problems(self) -> list[str]:
        """Where the promise is broken."""
        found = []
        for mode in DECIDING:
            ratio, cost, makings = (
                self.ratio[LARGE][mode][MIX],
                self.microseconds[LARGE][mode][MIX],
                self._makings(mode),
            )
            if ratio > MOST_RATIO:
                found.append(f"{mode}: {LARGE} rules cost {ratio:.2f} times what {SMALL} cost (at most {MOST_RATIO})")
            if makings > MOST_MAKINGS:
                found.append(
                    f"{mode}: a decision costs {cost:.2f} us on average, {makings:.1f} times what making a request "
                    f"costs (at most {MOST_MAKINGS:g})"
                )
        return found

    @property
    def growth(self) -> float:
        """What a decision costs with many rules, of what it costs with few; the worse of both ways of asking."""
        return max(self.ratio[LARGE][mode][MIX] for mode in DECIDING)

    @property
    def makings(self) -> float:
        """What a decision costs with many rules, in requests made; the worse of both as well."""
        return max(self._makings(mode) for mode in DECIDING)

    def _makings(self, mode: str) -> float:
        return self.microseconds[LARGE][mode][MIX] / self.microseconds[LARGE][MAKING][MIX]

    def _slowest(self) -> tuple[str, float]:
        costs = {
            kind: max(self.microseconds[LARGE][mode][kind] for mode in DECIDING)
            for kind in self.microseconds[LARGE]["fresh"]
        }
        return max(costs.items(), key=lambda item: item[1])

    def in_short(self) -> str:
        cost = max(self.microseconds[LARGE][mode][MIX] for mode in DECIDING)
        return (
            f"{LARGE} rules cost {self.growth:.2f} times what {SMALL} cost (at most {MOST_RATIO}), "
            f"and a decision {cost:.2f} us, {self.makings:.1f} times what making a request costs "
            f"(at most {MOST_MAKINGS:g})"
        )

    def as_json(self) -> str:
        content = {
            "rounds": self.rounds,
            "code": compiled.said(),
            "microseconds": self.microseconds,
            "ratio": self.ratio,
            "growth": self.growth,
            "makings": self.makings,
            "limits": {"ratio": MOST_RATIO, "makings": MOST_MAKINGS},
            "load": self.load,
            "problems": self.problems(),
        }
        return json.dumps(content, indent=2)

    def as_table(self) -> str:
        sizes = list(self.microseconds)
        lines = [
            f"CPU time of one decision in microseconds, median of {self.rounds} rounds (ratio to {SMALL} rules)",
            f"The code is {compiled.said()}.",
            "",
        ]
        for mode in MODES:
            lines.append(f"{'request ' + mode:18}" + "".join(f"{size:>18}" for size in sizes))
            for kind in self.microseconds[SMALL][mode]:
                cells = [
                    f"{self.microseconds[size][mode][kind]:.2f} ({self.ratio[size][mode][kind]:.2f})" for size in sizes
                ]
                lines.append(f"  {kind:16}" + "".join(f"{cell:>18}" for cell in cells))
            lines.append("")
        slowest, cost = self._slowest()
        lines.append(f"the slowest kind with {LARGE} rules: {slowest}, {cost:.2f} us")
        if self.load:
            lines.append(
                f"loading {self.load['rules']:,} rules: {self.load['seconds']:.2f} s "
                f"({self.load['cpu_seconds']:.2f} s of CPU time)"
            )
        return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, decide: Decide = policy_decide) -> int:
    options = _parser().parse_args(arguments)
    loaded = load(options.load) if options.load else None
    result = Result.of(run(decide, options.rounds, options.repeat), loaded)
    print(result.as_json() if options.json else result.as_table())
    problems = result.problems()
    for problem in problems:
        print(f"bench: {problem}", file=sys.stderr)
    if not problems and not options.json:
        print(f"the promise holds: {result.in_short()}")
    return 1 if problems else 0


_EPILOG = f"""\
exit status:
  0  the promise holds
  1  {LARGE} rules cost more than {MOST_RATIO} times what {SMALL} cost (median of the rounds' ratios, over all kinds),
     or a decision more than {MOST_MAKINGS:g} times what it costs to make a request
  2  the command line was not understood
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench decide",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--rounds", type=_positive, default=15, metavar="N", help="how many rounds (default: 15)")
    parser.add_argument(
        "--repeat", type=_positive, default=40, metavar="N", help="how often a round asks each question (default: 40)"
    )
    parser.add_argument(
        "--load", type=int, default=10_000, metavar="N", help="how many rules to load; 0: none (default: 10000)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few (use 1 or more)")
    return number


if __name__ == "__main__":
    sys.exit(main())
