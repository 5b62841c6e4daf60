"""Tunnels whose bytes come in pieces of any size and end in any way: every byte and every end is compared.

Not a matter of cost: whether anything is lost at the hand-over to the kernel, in a half-close, or at a reset.
"""

from __future__ import annotations

from bench import place
from bench.figures import OURS, Metric
from bench.programs import ProgramFailed
from bench.stage import Stage, Wrong
from bench.subjects import gateway

NAME = "stress"
ABOUT = "tunnels with random pieces, sizes and ends, every byte and end compared"
TUNNELS = Metric("stress_tunnels", "stress: tunnels compared", "", 0, compared=False)
_COUNT, _QUICK_COUNT = 20_000, 400


def run(stage: Stage) -> None:
    count = _QUICK_COUNT if stage.scale.quick else _COUNT
    try:
        subject = stage.start(gateway.NAME)
    except ProgramFailed as error:
        stage.wrong.append(f"{NAME}: {error}")
        return
    where = ["--host", place.WWW, "--address", place.ORIGIN, "--port", place.STRESS_PORT]
    try:
        result = stage.client("stress", "--proxy", subject.connect, *where, "--count", count, timeout=1800)
        subject.program.check()
        stage.figures.add(TUNNELS, OURS, result["good"])
        gib, seconds = result["moved"] / (1 << 30), result["seconds"]
        stage.say(f"{NAME}: {result['good']:,} tunnels, {gib:.2f} GiB, in {seconds:.0f} s")
    except (Wrong, ProgramFailed) as error:
        stage.wrong.append(f"{NAME}: {error}")
        stage.figures.add(TUNNELS, OURS, None)
    finally:
        subject.stop()
