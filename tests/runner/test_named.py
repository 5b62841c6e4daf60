"""Names: each process of a gateway can be told from the others, and all of them can be found."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from egress_gateway.runner import named

from .conftest import Runner

pytestmark = [pytest.mark.private_network]


def shown(pid: int) -> tuple[str, str]:
    """Name and arguments, as ps(1) has them."""
    line = subprocess.run(
        ["ps", "-ww", "-o", "comm=,args=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    name, _, arguments = line.stdout.strip().partition(" ")
    return name, arguments.strip()


def options(pid: int) -> list[str]:
    arguments = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    return arguments[arguments.index("--listen-host") :]


def test_supervisor_workers_and_telemetry_are_told_apart(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2", cold=True)  # it is about how the program was executed
    gateway = running.gateway
    workers = running.workers()
    (telemetry,) = set(running.children()) - set(workers)
    name, arguments = shown(gateway.pid)
    assert name == "egress-gateway"
    assert re.search(r"python\S* -P -m egress_gateway\.runner --", arguments)
    assert shown(telemetry)[0] == "egress-metrics"
    assert shown(telemetry)[1].startswith("egress_gateway.runner: metrics --")
    assert {shown(pid)[0] for pid in workers} == {"egress-worker"}
    assert {shown(pid)[1].partition(" --")[0] for pid in workers} == {
        "egress_gateway.runner: worker 0",
        "egress_gateway.runner: worker 1",
    }
    # Which gateway's they are is seen as well; gateway-up looks at an option.
    assert all(options(pid) == options(gateway.pid) for pid in (*workers, telemetry))
    found = subprocess.run(["pgrep", "-f", "egress_gateway.runner"], capture_output=True, text=True, check=True)
    assert {gateway.pid, telemetry, *workers} <= {int(pid) for pid in found.stdout.split()}
    exactly = subprocess.run(["pgrep", "-x", "egress-gateway"], capture_output=True, text=True, check=True)
    assert str(gateway.pid) in exactly.stdout.split()
    assert not {str(pid) for pid in (*workers, telemetry)} & {*exactly.stdout.split()}


_LONELY = """
import sys
from egress_gateway.runner import named
sys.argv = ["", *("x" * 100_000 for _ in range(3))]
named.be_called("a name that is too long by far")
named.show_role("worker 0")
print(*open("/proc/self/comm"), open("/proc/self/cmdline", "rb").read().rstrip(bytes(1)), flush=True)
import os
print(len(os.environ) > 0, os.environ["HOME"], sys.orig_argv[1], flush=True)
os.execv("/bin/echo", ["echo", "still alive"])
"""


def test_what_has_no_room_is_left_out_and_nothing_else_is_touched(tmp_path: Path) -> None:
    program = [*("python", "-c", _LONELY), "y" * 20]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=False,
        executable=Path(named.__file__).parents[3] / ".venv/bin/python",
        env={"HOME": str(tmp_path), "PYTHONPATH": str(Path(named.__file__).parents[2])},
    )
    room = sum(len(word) + 1 for word in program)
    name, arguments, untouched, alive = done.stdout.splitlines()
    assert (name, alive) == ("a name that is ", "still alive")
    title = f"egress_gateway.runner: worker 0\0{'x' * room}"[: room - 1]
    assert arguments.strip() == repr(title.encode())
    assert untouched == f"True {tmp_path} -c"


def test_without_leave_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> tuple[int, int]:
        raise PermissionError

    monkeypatch.setattr(named, "_arguments", forbidden)
    named.show_role("worker 0")
    monkeypatch.setattr(named, "_arguments", lambda: (4096, 8192))  # where no memory is
    named.show_role("worker 0")
