"""What the files say is in force, counted and told; and where something of ours fails, that is told as well."""

import asyncio
import logging

import pytest

from egress_gateway.dns.resolver import Resolver
from egress_gateway.dns.settings import ResolverSettings
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Settings
from egress_gateway.hooks import rules_in_force as module
from egress_gateway.hooks.rules_in_force import RulesInForce
from egress_gateway.policy.events import Observer
from support.files import put
from support.waiting import until


def rule(name):
    return (
        f"kind: EgressRule\nmetadata: {{name: {name}}}\n"
        f"spec: {{destination: {{service: {name}.example.com}}, ports: [{{port: 443, protocol: https}}]}}\n"
    )


class Events(Observer):
    def __init__(self):
        self.all = []

    def reloaded(self, rules, *, successful):
        self.all.append((rules, "loaded" if successful else "failed"))

    def internal_error(self, where):
        self.all.append(where)


class SeriesOf:
    """Which rules have series."""

    def __init__(self):
        self.kept = None
        self.fails = 0

    def keep(self, rules, _names):
        self.kept = [rule.name for rule in rules]

    def keep_later(self, rules, names):
        found = list(rules)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("not today")
        return lambda: self.keep(found, names)


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def series():
    return SeriesOf()


@pytest.fixture
def gate(events):
    return Gatekeeper(Resolver(ResolverSettings()), events, Settings())


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "a.yaml").write_text(rule("a"))
    return tmp_path


@pytest.fixture
async def rules(gate, series, directory, caplog):
    caplog.set_level(logging.INFO)
    rules = RulesInForce(gate)
    rules.series = series
    yield rules
    await rules.stop()


def in_force(gate):
    return [rule.name for rule in gate.ruleset.rules]


async def test_what_is_read_at_the_start_is_not_taken_in_again(rules, gate, events, series, directory):
    assert not rules.are_loaded
    assert rules.load(str(directory)) == []
    await rules.watch(str(directory))
    await rules.loaded()
    assert (in_force(gate), series.kept, events.all) == (["a"], ["a"], [(1, "loaded")])


async def test_what_is_wrong_at_the_start_is_returned_and_nothing_is_in_force(rules, gate, events, directory):
    put(directory / "b.yaml", "kind: [")
    assert "b.yaml:1:8" in rules.load(str(directory))[0]
    assert not rules.are_loaded
    assert (in_force(gate), events.all) == ([], [])


async def test_a_change_is_in_force_and_what_does_not_load_changes_nothing(
    rules, gate, events, series, directory, caplog
):
    rules.load(str(directory))
    await rules.watch(str(directory))
    put(directory / "b.yaml", rule("b"))
    await until(lambda: (2, "loaded") in events.all, "two rules")
    assert (in_force(gate), series.kept) == (["a", "b"], ["a", "b"])
    put(directory / "b.yaml", "kind: [")
    await until(lambda: (2, "failed") in events.all, "a failure with two rules in force")
    assert in_force(gate) == ["a", "b"]
    assert "the last good ones stay in force" in caplog.text
    put(directory / "b.yaml", rule("b"))  # the rules are those in force, and the failure is over
    await until(lambda: events.all[-1] == (2, "loaded"), "two rules again")


async def test_where_no_thread_can_be_started_it_is_told_and_counted_and_tried_again(
    rules, gate, events, directory, monkeypatch, caplog
):
    async def no_thread(*_args, **_kwargs):
        raise RuntimeError("can't start new thread")

    rules.load(str(directory))
    await rules.watch(str(directory))
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "to_thread", no_thread)
        (directory / "a.yaml").unlink()
        await until(lambda: events.all[1:3] == ["rules", (1, "failed")], "the error and the failure")
        assert in_force(gate) == ["a"]
    assert "can't start new thread" in caplog.text
    await until(lambda: events.all[-1] == (0, "loaded"), "no rule")
    assert in_force(gate) == []


async def test_what_is_in_force_but_not_taken_in_wholly_is_taken_in_again(
    rules, gate, events, series, directory, caplog
):
    rules.load(str(directory))
    await rules.watch(str(directory))
    series.fails = 1
    put(directory / "a.yaml", rule("b"))
    await until(lambda: (1, "failed") in events.all, "a failure with one rule in force")
    assert in_force(gate) == ["b"]
    assert series.kept == ["a"]
    assert "the new rules are in force" in caplog.text
    assert "the last good ones" not in caplog.text
    await until(lambda: events.all[-1] == (1, "loaded"), "one rule")
    assert series.kept == ["b"]
    assert events.all == [(1, "loaded"), "rules", (1, "failed"), (1, "loaded")]


async def test_what_is_forgotten_comes_into_force_again_when_it_is_watched(rules, gate, directory):
    rules.load(str(directory))
    rules.forget()
    assert (in_force(gate), rules.are_loaded) == ([], False)
    put(directory / "b.yaml", "kind: [")
    await rules.watch(str(directory))
    waiting = asyncio.create_task(rules.loaded())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert in_force(gate) == []
    (directory / "b.yaml").unlink()
    rules.look()
    await asyncio.wait_for(waiting, 15)
    assert in_force(gate) == ["a"]


async def test_one_process_speaks_for_all_and_each_counts(rules, events, directory, caplog):
    rules.speaks = False
    rules.load(str(directory))
    await rules.watch(str(directory))
    put(directory / "a.yaml", "kind: [")
    await until(lambda: (1, "failed") in events.all, "a failure with one rule in force")
    assert "egress gateway" not in caplog.text


async def test_of_very_many_problems_some_are_said(rules, directory, monkeypatch, caplog):
    monkeypatch.setattr(module, "_MOST_SAID", 2)
    rules.load(str(directory))
    await rules.watch(str(directory))
    for name in "bcde":
        (directory / f"{name}.new").write_text("kind: [")
    for name in "bcde":
        (directory / f"{name}.new").rename(directory / f"{name}.yaml")
    await until(lambda: "2 more errors are not shown" in caplog.text, "the line in the log")
