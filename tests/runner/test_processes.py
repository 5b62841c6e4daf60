"""Children: their exit status comes back, signals find them without handlers, and none outlives its parent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import egress_gateway
from support.waiting import eventually

# In a process of its own: one that forks must have one thread, and pytest has more.
_PROGRAM = """
import os, signal, sys, time
from egress_gateway.runner.processes import fork, hear_hangups

def raises(): raise ValueError("on purpose")
def exits(): sys.exit(5)
def waits():
    time.sleep(60)
    return 0
def is_told():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGHUP}
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)

def hangs_up():
    os.kill(os.getpid(), signal.SIGHUP)
    heard = []
    signal.signal(signal.SIGHUP, lambda *_: heard.append(1))
    assert not heard
    hear_hangups()
    return len(heard)

signal.signal(signal.SIGTERM, lambda *_: print("in the wrong process"))
print("before", end=" ")  # must not come twice
assert fork(lambda: 0).reap() == 0
assert fork(lambda: 7).reap() == 7
assert fork(exits).reap() == 5
assert fork(raises).reap() == 70
assert fork(hangs_up).reap() == 1
assert fork(is_told).reap() == -signal.SIGTERM
print(fork(waits).pid, flush=True)
time.sleep(60)
"""


def test_children(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(egress_gateway.__file__).parents[1],
    )
    with program:
        assert program.stdout is not None
        words = program.stdout.readline().split()
        assert words[0] == "before"
        child = Path("/proc", words[1])
        assert child.exists()
        program.kill()
        eventually(lambda: not child.exists(), "the end of the child")
        _, said = program.communicate()
        assert "ValueError: on purpose" in said
        assert "wrong process" not in said
