"""CPU time, memory and descriptors of a process and its descendants."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bench.accounts import Stat

from bench import accounts

_BURN = "import time; end = time.process_time() + {seconds}\nwhile time.process_time() < end: pass\n"


@contextmanager
def python(program: str) -> Iterator[subprocess.Popen[str]]:
    """A program that is over when it reads the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def test_the_name_of_a_process_may_look_like_more_fields() -> None:
    line = "77 (a) R 1 (b) S 42 77 77 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 1 0 100 1000 100"
    ticks = os.sysconf("SC_CLK_TCK")
    assert Stat.parse(line) == Stat(42, 200 / ticks, 50 / ticks)


def test_what_a_process_burns_is_counted_and_what_it_waits_is_not() -> None:
    """By its own clock, since it may use more than it was told to."""
    tells = "print(time.process_time(), flush=True); input()\n"
    with python(_BURN.format(seconds=0.2) + tells * 2) as started:
        assert started.stdin
        assert started.stdout
        burnt = float(started.stdout.readline())
        used = accounts.cpu_seconds(started.pid)
        time.sleep(0.1)
        still = accounts.cpu_seconds(started.pid)
        print(file=started.stdin, flush=True)
        assert 0.2 <= burnt <= used <= still <= float(started.stdout.readline())


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("print('burnt', flush=True); input()", id="while it runs"),
        pytest.param("", id="and after it has ended"),
    ],
)
def test_what_a_grandchild_burns_is_counted(ending: str) -> None:
    burning = _BURN.format(seconds=0.2) + ending
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {burning!r}])"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {child!r}]); print('over')"
    with python(parent + "; sys.stdout.flush(); input()") as started:
        assert started.stdout
        started.stdout.readline()
        assert 0.2 <= accounts.cpu_seconds(started.pid) < 5
        assert len(accounts.tree(started.pid)) == (3 if ending else 1)


def test_a_process_that_is_gone_has_used_nothing() -> None:
    with python("") as started:
        started.communicate()
    assert accounts.cpu_seconds(started.pid) == 0
    assert accounts.proportional_kib(started.pid) == 0
    assert accounts.descriptors(started.pid) == 0


def test_memory_and_descriptors_are_those_of_the_whole_tree() -> None:
    child = "import os; held = bytearray(os.urandom(1)) * (32 << 20); files = [open('/dev/null') for _ in range(50)]"
    child += "; print('here', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {child!r}])"
    with python(parent) as started:
        assert started.stdout
        started.stdout.readline()
        assert accounts.proportional_kib(started.pid) > 32 << 10
        assert accounts.descriptors(started.pid) >= 56
        assert len(accounts.cpu_by_process(started.pid)) == 2
