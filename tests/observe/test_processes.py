"""What the system knows of several processes, told as of one."""

import os

from egress_gateway.observe.arena import Arena
from egress_gateway.observe.processes import Processes, cpu_seconds
from support.children import fork


def arenas(*pids: int) -> list[Arena]:
    """One for each, that says to be of that process."""
    made = []
    for pid in pids:
        arena = Arena.create(rows=8, text=4096, cells=128)
        arena.adopt()
        assert arena.pid == os.getpid()
        arena._head[0] = pid
        made.append(arena)
    return made


def figures(several: list[Arena]) -> dict[str, float]:
    return {metric.samples[0].name: metric.samples[0].value for metric in Processes(several).collect()}


def test_two_processes_have_twice_as_much_and_began_when_the_first_did() -> None:
    me = os.getpid()
    one, two = figures(arenas(me)), figures(arenas(me, me))
    assert one.keys() == two.keys() >= {"process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"}
    assert two["process_max_fds"] == 2 * one["process_max_fds"]
    assert two["process_start_time_seconds"] == one["process_start_time_seconds"]
    assert two["process_cpu_seconds_total"] >= 2 * one["process_cpu_seconds_total"]


def test_an_arena_in_which_nobody_counts_has_no_process() -> None:
    assert figures(arenas(0)) == {}
    assert figures(arenas(0, os.getpid())).keys() == figures(arenas(os.getpid())).keys()


def test_the_processor_time_of_those_that_are_gone_counts() -> None:
    several = arenas(os.getpid(), os.getpid())
    several[1].release([], 1000.0)
    assert figures(several)["process_cpu_seconds_total"] > 1000


def test_a_process_that_was_not_waited_for_has_its_time_still() -> None:
    def compute() -> None:
        while os.times().user < 0.03:
            pass

    pid = fork(compute)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert cpu_seconds(pid) > 0
    os.waitpid(pid, 0)
    assert cpu_seconds(pid) == 0.0
