"""Whatever the demo has started is ended, in whichever moment a signal strikes."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# Starts a program again and again; a signal strikes at the first line of Python that is run meanwhile, at the second,
# and so on, until it strikes while the program is being waited for. What is running then was lost.
STRIKE_AT_EVERY_LINE = """
import itertools, os, signal, subprocess, sys
from pathlib import Path
from demo.ending import Ended, listen
from demo.processes import Program, end_all, run_to_end

WATCHED = (subprocess.__file__, sys.modules["demo.processes"].__file__)
ENVIRONMENT, CHILDREN = dict(os.environ), Path("/proc/self/task", str(os.getpid()), "children")

def run():
    run_to_end(["sleep", "60"], ENVIRONMENT, Path.cwd())

def start():
    with Program("sleeper", ["sleep", "60"], ENVIRONMENT, Path.cwd()) as program:
        program.wait_for("never")

lines = itertools.count()
for strike_at in itertools.count():
    seen, waiting = itertools.count(), False
    def trace(frame, event, _):
        global waiting
        if frame.f_code.co_filename not in WATCHED:
            return None
        waiting = frame.f_code.co_name in ("communicate", "wait_for")
        if waiting or event == "line" and next(seen) == strike_at:
            sys.settrace(None)
            os.kill(os.getpid(), signal.SIGTERM)
        return trace
    listen()
    try:
        sys.settrace(trace)
        {"run": run, "start": start}[sys.argv[1]]()
    except Ended:
        end_all()
    if left := CHILDREN.read_text():
        subprocess.run(["kill", *left.split()])
        sys.exit(f"a signal at line {strike_at} leaves something running")
    if waiting:
        print(strike_at)
        break
"""


@pytest.mark.parametrize("how", ["run", "start"])
def test_a_signal_while_a_program_is_being_started_does_not_lose_it(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STRIKE_AT_EVERY_LINE, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10, "it struck while the program was being started"
