"""What many processes say together: the sums, what a dead one leaves, and that nothing goes backwards."""

import itertools
import os
import re
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from egress_gateway.observe import merged
from egress_gateway.observe.arena import Arena
from egress_gateway.observe.families import Families, SupervisorFamilies
from egress_gateway.observe.metrics import Metrics
from egress_gateway.observe.processes import cpu_seconds
from egress_gateway.observe.series import Declaration, Family, Histograms, Numbers
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import refuse
from support.children import fork, kill

COUNTER = Declaration((Family("x_total", "counter", "X."),), ("a",))
SECONDS = Declaration((Family("seconds", "histogram", "Time.", (0.5, 1)),), ())


def empty(count: int) -> list[Arena]:
    return [Arena.create(rows=256, text=65_536, cells=8192) for _ in range(count)]


def arenas(count: int) -> list[Arena]:
    made = empty(count)
    for arena in made:
        arena.adopt()
    return made


def samples(text: str) -> dict[str, float]:
    """By the text of the series."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}
    assert len(found) == len(lines), "a series stands twice"
    return found


def gauge(arena: Arena, how: Any) -> Numbers:
    return Numbers(arena, Declaration((Family("g", "gauge", "G."),), (), how))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 2)), max_size=30), min_size=1, max_size=5))
def test_together_is_as_if_one_had_counted_it_all(counted: list[list[tuple[str, float]]]) -> None:
    several, (alone,) = arenas(len(counted)), arenas(1)
    for events, arena in zip(counted, several, strict=True):
        for into in (arena, alone):
            numbers, seconds = Numbers(into, COUNTER), Histograms(into, SECONDS)
            for label, value in events:
                numbers.at(label).value += 1
                seconds.at().observe(value)
    assert samples(merged.Merged(several).text()) == pytest.approx(samples(merged.Merged([alone]).text()))
    assert samples(merged.Merged(several).text()) == pytest.approx(samples(merged.Merged(several[::-1]).text()))


@pytest.mark.parametrize(("how", "expected"), [("sum", 7), ("max", 4), ("min", 1)])
def test_gauges_go_together_as_their_table_says(how: str, expected: float) -> None:
    several = arenas(3)
    for arena, value in zip(several, (2, 1, 4), strict=True):
        gauge(arena, how).at().value = value
    assert samples(merged.Merged(several).text()) == {"g": expected}


@pytest.mark.parametrize("how", ["max", "min"])
def test_who_has_not_told_yet_does_not_count(how: str) -> None:
    several = arenas(3)
    for arena, value in zip(several, (float("nan"), 3, float("nan")), strict=True):
        gauge(arena, how).at().value = value
    assert samples(merged.Merged(several).text()) == {"g": 3}
    assert samples(merged.Merged(several[:1]).text()) == {"g": 0}, "and if nobody has, it is nought"


def test_rules_that_do_not_load_in_one_process_show() -> None:
    several = [Metrics(arena=arena) for arena in arenas(3)]
    several[0].reloaded(3, successful=True)
    several[1].reloaded(2, successful=False)
    found = samples(merged.Merged(arenas_of(several)).text())
    assert found["egress_rules"] == 3
    assert found["egress_rules_last_reload_successful"] == 0
    assert found['egress_rules_reloads_total{result="success"}'] == 1


def arenas_of(several: list[Metrics]) -> list[Arena]:
    return [metrics.arena for metrics in several]


def test_a_dead_process_takes_its_gauges_and_leaves_its_counters() -> None:
    several = [Metrics(arena=arena) for arena in arenas(2)]
    for metrics in several:
        metrics.connection_opened("regular")
        metrics.connected(0.1)
    merged.retire(several[0].arena)
    found = samples(merged.Merged(arenas_of(several)).text())
    assert found['egress_connections{protocol="regular"}'] == 1
    assert found['egress_connections_total{protocol="regular"}'] == 2
    assert found["egress_upstream_connect_seconds_count"] == 2


def test_its_successor_goes_on_where_it_stopped() -> None:
    (arena,) = arenas(1)
    for _ in range(3):
        metrics = Metrics(arena=arena)
        metrics.connection_opened("regular")
        metrics.decided(refuse(Reason.NO_RULE), "http", 0.0)
        metrics.access_log_dropped = lambda: 2
        metrics.refresh()
        merged.retire(arena)
    found = samples(merged.Merged([arena]).text())
    assert found['egress_connections_total{protocol="regular"}'] == 3
    assert found['egress_decisions_total{action="deny",reason="no_rule",protocol="http",rule=""}'] == 3
    assert found["egress_access_log_dropped_total"] == 6
    assert 'egress_connections{protocol="regular"}' not in found


def test_the_processor_time_of_a_killed_process_stays() -> None:
    (arena,) = arenas(1)

    def compute() -> None:
        arena.adopt()
        while True:
            pass

    pid = fork(compute)
    while cpu_seconds(pid) < 0.05:
        pass
    kill(pid, reap=False)
    merged.retire(arena)
    os.waitpid(pid, 0)
    assert arena.cpu_before >= 0.05
    merged.retire(arena, cpu=2.0)
    assert arena.cpu_before >= 2.05, "as whoever has waited for it can say"


def test_nothing_goes_backwards_while_processes_are_killed_and_started() -> None:
    """Children count as fast as they can and are killed; each scrape shows at least what the one before it did."""
    several = empty(2)
    reader = merged.Merged(several)
    before: dict[str, float] = {}

    def start(arena: Arena) -> int:
        def count() -> None:
            metrics = Metrics(arena=arena)
            while True:
                metrics.connection_opened("regular")
                metrics.connected(0.1)
                metrics.decided(refuse(Reason.NO_RULE), "http", 0.001)
                metrics.connection_closed("regular")

        return fork(count)

    running = {start(arena): arena for arena in several}
    try:
        for turn in itertools.count():
            text = reader.exposition().decode()
            now = samples(text)
            counters = {name: value for name, value in now.items() if re.search("_(total|count|bucket|sum)", name)}
            for name, value in before.items():
                assert counters.get(name, 0) >= value, f"{name}: {value}, then {counters.get(name)}"
            before = counters
            if turn % 5 == 4:
                pid, arena = running.popitem()
                kill(pid, reap=False)
                merged.retire(arena)
                os.waitpid(pid, 0)
                running[start(arena)] = arena
            # A child may not have had its turn for a while.
            if turn >= 40 and before.get("egress_upstream_connect_seconds_count", 0) > 100:
                break
            assert turn < 10_000
    finally:
        for pid in running:
            kill(pid)


def test_what_the_supervisor_counts_stands_beside_it() -> None:
    worker, own = arenas(2)
    Metrics(arena=worker)
    supervisor = SupervisorFamilies(own)
    supervisor.workers_wanted.at().value = 2
    supervisor.restarts.at().value += 1
    found = samples(merged.Merged([worker, own]).text())
    assert found["egress_workers_wanted"] == 2
    assert found["egress_workers_ready"] == found["egress_draining"] == 0
    assert found["egress_worker_restarts_total"] == 1


def test_prometheus_parser_reads_all_of_it() -> None:
    worker, own = arenas(2)
    Metrics(arena=worker)
    SupervisorFamilies(own)
    text = merged.Merged([worker, own]).exposition().decode()
    found = [(family.name, family.type) for family in text_string_to_metric_families(text)]
    assert len(found) == len(set(found))
    assert ("process_resident_memory_bytes", "gauge") in found


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is not installed")
def test_promtool_finds_nothing_in_what_the_supervisor_counts() -> None:
    worker, own = arenas(2)
    Metrics(arena=worker)
    SupervisorFamilies(own)
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=merged.Merged([worker, own]).exposition(),
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0
    assert checked.stdout + checked.stderr == b""


def test_a_scrape_forgets_what_the_processes_have_forgotten() -> None:
    (arena,) = arenas(1)
    numbers = Numbers(arena, COUNTER)
    reader = merged.Merged([arena])
    for i in range(100):
        numbers.at(str(i))
        assert reader.text().count("x_total{") == 1
        numbers.keep(lambda _: False)
    assert len(reader._labels) == 1


def test_all_tables_fit_into_an_arena_many_times() -> None:
    arena = Arena.create()
    arena.adopt()
    Families(arena)
    SupervisorFamilies(arena)
    assert sum(row.cells for row in arena.rows()) * 100 < len(arena.cells)
