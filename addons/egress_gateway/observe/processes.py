"""What the system knows of the gateway's processes: prometheus_client's `process_*`, of all of them together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from operator import add
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .arena import Arena

_TRIES = 5


class Processes(Collector):
    """Sums over the processes that count in `arenas`; the time of a start is the first one's.

    The processor time of a process that is gone is in its arena, so that the sum never shrinks.
    """

    def __init__(self, arenas: Sequence[Arena]) -> None:
        self._arenas = arenas

    def collect(self) -> Iterator[Metric]:
        epochs = None
        found: dict[str, Metric] = {}
        for _ in range(_TRIES):
            if epochs == (epochs := [arena.epoch for arena in self._arenas]):
                break  # nobody died meanwhile, to be counted twice or not at all
            found = _sum(arena.pid for arena in self._arenas if arena.pid)
            cpu = found.get("process_cpu_seconds")
            if cpu is not None:
                _set(cpu, _value(cpu) + sum(arena.cpu_before for arena in self._arenas))
        return iter(found.values())


def _sum(pids: Iterable[int]) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for pid in pids:
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            known = found.setdefault(metric.name, metric)
            if known is not metric:
                merge = min if metric.name == "process_start_time_seconds" else add
                _set(known, merge(_value(known), _value(metric)))
    return found


def _value(metric: Metric) -> float:
    return float(metric.samples[0].value)


def _set(metric: Metric, value: float) -> None:
    metric.samples = [metric.samples[0]._replace(value=value)]


def cpu_seconds(pid: int) -> float:
    """The processor time of a process that lives or was not waited for yet; 0 where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
