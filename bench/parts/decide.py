"""The cost of a decision alone: scripts/bench decide, as a part of a whole run."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.figures import OURS, Metric
from bench.stage import Stage

NAME = "decide"
ABOUT = "the cost of a decision alone"
FEW = Metric("decide_few", "a decision, 10 rules", "us CPU", 2, compared=False)
MANY = Metric("decide_many", "a decision, 100,000 rules", "us CPU", 2, compared=False)
GROWTH = Metric("decide_growth", "deciding, many against few", "x", 2, compared=False)
MAKINGS = Metric("decide_makings", "a decision, of what making its request costs", "x", 1, compared=False)


def run(stage: Stage) -> None:
    rounds = "2" if stage.scale.quick else "15"
    command = [sys.executable, "-m", "bench.decide", "--json", "--load", "0", "--rounds", rounds]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        stage.wrong.append(f"{NAME}: {done.stderr.strip()[-500:]}")
        said = None
    for metric, size in ((FEW, "10"), (MANY, "100,000")):
        stage.figures.add(metric, OURS, said and said["microseconds"][size]["fresh"]["all kinds"])
    for metric, name in ((GROWTH, "growth"), (MAKINGS, "makings")):
        stage.figures.add(metric, OURS, said and said[name])
    if said:
        stage.say(f"{NAME}: " + ("; ".join(said["problems"]) or "the promise holds") + f" ({said['code']})")
