"""Thousands of idle tunnels and thousands of busy connections at once: all are served."""

from __future__ import annotations

from bench.figures import OURS, Metric
from bench.parts import http
from bench.parts.idle import Held
from bench.programs import ProgramFailed
from bench.stage import Stage, Wrong
from bench.subjects import gateway

NAME = "crowd"
ABOUT = "9,000 idle tunnels and 2,000 busy connections at once"
IDLE = Metric("crowd_idle", "crowd: idle tunnels that all work", "", 0, compared=False)
BUSY = Metric("crowd_busy", "crowd: requests over busy connections", "", 0, compared=False)


def run(stage: Stage) -> None:
    """With two workers, since one process may not have descriptors enough."""
    idle, busy = stage.scale.crowd_idle, stage.scale.crowd_busy
    try:
        workers = 2 if gateway.takes_workers(stage.programs[gateway.NAME]) else 1
        subject = stage.start(gateway.NAME, workers=workers)
        try:
            with Held(stage, subject, idle):
                requests = http.load(stage, subject.http, connections=busy, seconds=stage.scale.crowd_seconds)
                subject.program.check()
        finally:
            subject.stop()
    except (Wrong, ProgramFailed) as error:
        stage.wrong.append(f"{NAME}: {error}")
        stage.figures.add(IDLE, OURS, None)
        stage.figures.add(BUSY, OURS, None)
        return
    stage.figures.add(IDLE, OURS, idle)
    stage.figures.add(BUSY, OURS, requests)
    stage.say(f"{NAME}: {idle:,} idle tunnels, {busy:,} busy connections, {requests:,.0f} requests: no error")
