"""Names: each process of a gateway can be told from the others, and all of them can be found."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from egress_gateway.runner import named

from .conftest import Runner

pytestmark = [pytest.mark.private_network]


def name(pid: int) -> str:
    shown = subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


def found(*how: str) -> set[int]:
    shown = subprocess.run(["pgrep", *how], capture_output=True, text=True, check=True)
    return {int(pid) for pid in shown.stdout.split()}


def test_supervisor_workers_and_telemetry_are_told_apart(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2")
    supervisor, workers = running.gateway.pid, set(running.workers())
    (telemetry,) = set(running.children()) - workers
    assert name(supervisor) == "egress-gateway"
    assert name(telemetry) == "egress-metrics"
    assert {name(pid) for pid in workers} == {"egress-worker"}
    assert found("-x", "egress-gateway") & {supervisor, telemetry, *workers} == {supervisor}
    assert found("-f", "egress_gateway.runner") >= {supervisor, telemetry, *workers}


def test_what_is_too_long_is_cut() -> None:
    before = Path("/proc/self/comm").read_text().strip()
    try:
        named.be_called("a name that is too long by far")
        assert Path("/proc/self/comm").read_text() == "a name that is \n"
    finally:
        named.be_called(before)


def test_a_system_without_names_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path("/proc/self/comm").read_text()
    monkeypatch.setattr(named, "_prctl", None)
    named.be_called("whatever")
    assert Path("/proc/self/comm").read_text() == before
