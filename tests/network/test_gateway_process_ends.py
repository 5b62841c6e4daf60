"""The end of a gateway that gateway-up started, or was to start. Each test has the machine for itself: what is taken
back is all that there was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from egress_gateway.network.processes import Process
from support.gateway_machine import Done, GatewayMachine
from support.ordinary_user import NAME, reachable

pytestmark = [pytest.mark.private_network, pytest.mark.root]

INSIDE = ("--inside", "inside")
START = ("--start", "--user", NAME)


@pytest.mark.parametrize("form", [INSIDE, ("--sidecar",)], ids=["inside", "sidecar"])
def test_down_ends_it_and_removes_its_files(machine: GatewayMachine, form: tuple[str, ...]) -> None:
    (machine.folder / "held").mkdir()
    machine.up(*form, *START, before=reachable(machine.folder / "held")).check()
    process = Process.read(machine.state / "gateway.json")
    assert process
    assert process.runs
    assert machine.ruleset()
    done = machine.down().check()
    assert f"gateway-down: ended the gateway (pid {process.pid})" in done.lines
    assert not process.runs
    assert not machine.state.exists()
    assert machine.host.processes() == []
    assert machine.ruleset() == ""


# What does not work.


def test_one_that_cannot_start_is_told_with_its_last_words_and_everything_is_taken_back(
    machine: GatewayMachine,
) -> None:
    (machine.folder / "held").mkdir()
    wrong = ("--", "--set", "egress_idle_timeout=0")
    done = machine.up(*INSIDE, *START, *wrong, before=reachable(machine.folder / "held"))
    assert done.code == 1
    (line,) = done.lines
    assert line.startswith("gateway-up: the gateway ended with status 1 before it was ready: ")
    assert "egress_idle_timeout: 0 is too small" in line
    assert machine.ruleset() == ""
    assert machine.host.processes() == []
    assert not machine.state.exists()


def test_one_that_runs_ends_with_what_fails_after_it(machine: GatewayMachine) -> None:
    (machine.folder / "held").mkdir()
    machine.state.mkdir(mode=0o755)
    (machine.state / "keeper.log").mkdir()
    done = machine.up(*INSIDE, *START, before=reachable(machine.folder / "held"))
    (machine.state / "keeper.log").rmdir()
    assert done.code == 1
    assert "the gateway is ready" in done.lines[0]
    assert done.lines[-1] == f"gateway-up: {machine.state}/keeper.log: Is a directory"
    assert machine.ruleset() == ""
    assert machine.host.processes() == []


def test_a_user_who_cannot_run_python_is_told(
    machine: GatewayMachine, checked: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = machine.folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(closed / "python"))
    done = checked(*INSIDE, *START)
    assert done.code == 1
    (line,) = done.lines
    assert line.startswith(f"gateway-up: user {NAME} cannot run {closed}/python: [Errno 13] Permission denied")
    assert line.endswith("(every folder on the way must be open to that user: chmod a+rx)")


def test_a_user_who_cannot_read_the_rules_is_told(machine: GatewayMachine) -> None:
    (machine.folder / "held").mkdir()
    machine.rules.chmod(0o700)
    done = machine.up(*INSIDE, *START, before=reachable(machine.folder / "held"))
    assert done.code == 1
    assert done.lines == [
        f"gateway-up: user {NAME} cannot read the rules: {machine.rules}: the rules directory cannot be read "
        f"(allow it: chmod a+rx {machine.rules})"
    ]
