"""The directory that tells gateway-down what gateway-up has done."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from egress_gateway.network.layout import Kept, Layout
from egress_gateway.network.state import Installed, State, namespace
from egress_gateway.network.terminal import Failure

INSTALLED = Installed(Layout(("eth1",), 1, 2, kept=(Kept("tcp", 22),)), "/rules", 4711, ("egress", "scripts/gateway"))


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def test_what_is_installed_comes_back(state: State) -> None:
    assert state.installed() is None
    with state.locked():
        state.write(INSTALLED)
    assert state.installed() == INSTALLED


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layout": {}}', json.dumps(INSTALLED.to_json() | {"layout": None})])
def test_what_says_something_else_is_nothing(state: State, text: str) -> None:
    with state.locked():
        (state.directory / "installed.json").write_text(text)
    assert state.installed() is None


def test_it_goes_when_it_is_cleared(state: State) -> None:
    with state.locked():
        state.write(INSTALLED)
        state.keeper_log.write_text("")
        state.home.mkdir()
        (state.home / "file").write_text("")
        state.clear()
    assert not state.directory.exists()


def test_what_somebody_else_has_put_there_stays(state: State) -> None:
    with state.locked():
        state.write(INSTALLED)
        (state.directory / "notes").write_text("mine")
        state.clear()
    assert sorted(os.listdir(state.directory)) == ["lock", "notes"]


def test_one_at_a_time(state: State) -> None:
    with state.locked(), pytest.raises(Failure, match="another gateway-up or gateway-down is at work"):
        State(state.directory).locked(patience=0.1).__enter__()
    with State(state.directory).locked(patience=0.1):
        pass


def test_who_waited_for_a_directory_that_is_removed_meanwhile_has_a_new_one(state: State) -> None:
    entered = threading.Event()

    def wait() -> None:
        with State(state.directory).locked():
            state.write(INSTALLED)
            entered.set()

    with state.locked():
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not entered.wait(0.1)
        state.clear()
    waiting.join()
    assert state.installed() == INSTALLED


def test_a_lock_that_was_removed_while_it_was_taken_is_nobodys(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it happens when a gateway-down ends between the two."""
    real, times = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if not times:
            (state.directory / "lock").unlink()
        times.append(descriptor)

    monkeypatch.setattr(fcntl, "flock", flock)
    with state.locked(), pytest.raises(Failure):
        State(state.directory).locked(patience=0.1).__enter__()
    assert len(times) > 1


def test_a_link_is_no_directory_of_ours(state: State, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    state.directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="is not a directory"), state.locked():
        pass


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_directory_that_others_may_write_is_refused(state: State, mode: int) -> None:
    state.directory.mkdir()
    state.directory.chmod(mode)
    with pytest.raises(Failure, match="belongs to others"), state.locked():
        pass


def test_the_namespace_is_the_one_we_are_in() -> None:
    assert os.readlink("/proc/self/ns/net") == f"net:[{namespace()}]"
