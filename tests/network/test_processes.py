"""Processes are ended by who they are, never by a number that somebody else may have by now."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from egress_gateway.network.processes import Process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as started:
        yield started
        started.kill()


def who(started: subprocess.Popen[bytes]) -> Process:
    found = Process.of(started.pid)
    assert found
    return found


def test_a_process_is_read_as_it_was_written(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    who(sleeper).write(tmp_path / "pid.json")
    assert Process.read(tmp_path / "pid.json") == who(sleeper)
    assert who(sleeper).runs


@pytest.mark.parametrize("text", ["", "4711", "{}", '{"pid": "x", "started": 1, "boot": ""}', '{"pid": 1}', "[1]"])
def test_a_file_that_says_something_else_is_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid.json").write_text(text)
    assert Process.read(tmp_path / "pid.json") is None


def test_a_file_that_is_not_there_is_no_process(tmp_path: Path) -> None:
    assert Process.read(tmp_path / "pid.json") is None


def test_it_is_ended_and_then_it_does_not_run(sleeper: subprocess.Popen[bytes]) -> None:
    process = who(sleeper)
    assert process.stop()
    assert not process.runs  # though it still waits to be collected
    assert not process.stop()
    assert sleeper.wait() == -15


def test_one_that_does_not_listen_is_killed() -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", program], stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        assert who(started).stop(patience=0.1)
        assert started.wait() == -9


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another one"}])
def test_another_process_of_the_same_number_is_left_alone(
    sleeper: subprocess.Popen[bytes], change: dict[str, Any]
) -> None:
    earlier = replace(who(sleeper), **change)
    assert not earlier.runs
    assert not earlier.stop()
    assert sleeper.poll() is None


def test_there_is_nobody_of_a_number_that_nobody_has() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    assert Process.of(ended.pid) is None
    assert not Process(ended.pid, 1, "").stop()
