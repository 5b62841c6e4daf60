"""Very many requests and tunnels: memory stays flat, and nothing is left open."""

from __future__ import annotations

import time

from bench import accounts
from bench.figures import OURS, Metric
from bench.parts import http, originate, tunnels
from bench.programs import ProgramFailed
from bench.stage import Stage, Wrong
from bench.subjects import gateway
from bench.subjects.subject import Running

NAME = "soak"
ABOUT = "memory and descriptors over many requests and tunnels"
REQUESTS = Metric("soak_requests", "soak: requests", "", 0, compared=False)
TUNNELS = Metric("soak_tunnels", "soak: tunnels", "", 0, compared=False)
MEMORY = Metric("soak_memory", "soak: memory grown", "KiB", 0, compared=False)
OPEN = Metric("soak_open", "soak: descriptors left open", "", 0, compared=False)
CONNECTIONS = Metric("soak_connections", "soak: connections still counted", "", 0, compared=False)
_WARM = 0.1
"""The part of the whole after which memory is looked at for the first time: heaps and caches have their size then."""
_SLICE = 5.0
_QUIET = 2.0
"""Seconds in which connections that have ended are closed; what is open then is open for good."""


def run(stage: Stage) -> None:
    metrics = (REQUESTS, TUNNELS, MEMORY, OPEN, CONNECTIONS)
    try:
        subject = stage.start(gateway.NAME)
    except ProgramFailed as error:
        stage.wrong.append(f"{NAME}: {error}")
        return
    try:
        requests, made = _work(stage, subject, _WARM)
        time.sleep(_QUIET)
        opened = accounts.descriptors(subject.program.pid)
        memory = accounts.proportional_kib(subject.program.pid)
        more_requests, more_made = _work(stage, subject, 1 - _WARM)
        _wait_for_the_end(subject, opened)
        values = (
            requests + more_requests,
            made + more_made,
            accounts.proportional_kib(subject.program.pid) - memory,
            accounts.descriptors(subject.program.pid) - opened,
            gateway.metric(subject, "egress_connections"),
        )
        for metric, value in zip(metrics, values, strict=True):
            stage.figures.add(metric, OURS, value)
        stage.say(
            f"{NAME}: {values[0]:,.0f} requests, {values[1]:,.0f} tunnels: {values[2]:+,.0f} KiB, from {memory:,}"
        )
    except (Wrong, ProgramFailed) as error:
        stage.wrong.append(f"{NAME}: {error}")
        for metric in metrics:
            stage.figures.add(metric, OURS, None)
    finally:
        subject.stop()


def _work(stage: Stage, subject: Running, part: float) -> tuple[float, float]:
    """Requests plain and originated, and tunnels, in turn."""
    requests = made = 0.0
    wanted, tunnels_wanted = stage.scale.soak_requests * part, stage.scale.soak_tunnels * part
    seconds = 1.0 if stage.scale.quick else _SLICE
    while requests < wanted or made < tunnels_wanted:
        if requests < wanted:
            requests += http.load(stage, subject.http, seconds=seconds)
            requests += originate.load(stage, subject.http, seconds=seconds)
        if made < tunnels_wanted:
            made += tunnels.load(stage, subject, seconds)
        subject.program.check()
    return requests, made


def _wait_for_the_end(subject: Running, opened: int, timeout: float = 20) -> None:
    """Kept connections to destinations may stay for a while."""
    deadline = time.monotonic() + timeout
    while accounts.descriptors(subject.program.pid) > opened and time.monotonic() < deadline:
        time.sleep(0.2)
