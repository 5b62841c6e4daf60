"""A change of the rules directory is in force within a second, however it was made; what is broken changes nothing."""

import asyncio
import itertools
import os
import shutil
import threading
import time

import pytest

from egress_gateway.config import load as load_module
from egress_gateway.config import watch as watch_module
from egress_gateway.config.load import RulesCache, load_rules, parse_documents
from egress_gateway.config.store import Store
from egress_gateway.config.watch import RulesWatcher, fingerprint
from egress_gateway.policy.rule import EgressRule
from support.files import put
from support.waiting import PATIENCE, until

NEVER = 3600.0  # a poll interval that leaves events as the only way to see


def rule(name):
    return (
        f"kind: EgressRule\nmetadata: {{name: {name}}}\n"
        f"spec: {{destination: {{service: {name}.example.com}}, ports: [{{port: 443, protocol: https}}]}}\n"
    )


class Outcomes:
    """What a watcher handed over: names of rules for a load, messages for a failure."""

    def __init__(self):
        self.all = []
        self.revisions = []
        self.changed = asyncio.Event()
        self.threads = set()

    def loaded(self, loaded):
        self.revisions.append(loaded.ruleset.revision)
        self._add([rule.name for rule in sorted(loaded.ruleset.rules, key=lambda rule: rule.source.file)])

    def failed(self, problems):
        self._add(str(problems[0]))

    def _add(self, outcome):
        self.threads.add(threading.current_thread())
        self.all.append(outcome)
        self.changed.set()

    async def next(self, within=PATIENCE):
        """The outcome after the ones seen so far."""
        if not self.changed.is_set():
            await asyncio.wait_for(self.changed.wait(), within)
        self.changed.clear()
        return self.all[-1]

    async def until(self, outcome, within=PATIENCE):
        async with asyncio.timeout(within):
            while self.all[-1:] != [outcome]:
                self.changed.clear()
                await self.changed.wait()
        self.changed.clear()

    async def nothing(self, during=0.5):
        self.changed.clear()
        with pytest.raises(TimeoutError):
            await self.next(during)


@pytest.fixture
def rules(tmp_path):
    directory = tmp_path / "rules"
    directory.mkdir()
    return directory


@pytest.fixture
def outcomes():
    return Outcomes()


@pytest.fixture(params=["events", "polling"])
def watcher(request, rules, outcomes, monkeypatch):
    """Both ways of seeing a change, each alone."""
    if request.param == "polling":

        async def no_events(*_args, **_kwargs):
            raise OSError("no inotify here")
            yield

        monkeypatch.setattr(watch_module, "awatch", no_events)
        return RulesWatcher(rules, outcomes.loaded, outcomes.failed, poll_interval=0.2)
    return RulesWatcher(rules, outcomes.loaded, outcomes.failed, poll_interval=NEVER)


async def test_the_first_load_is_handed_over_before_start_returns(rules, watcher, outcomes):
    put(rules / "a.yaml", rule("a"))
    async with watcher:
        assert outcomes.all == [["a"]]
        assert outcomes.revisions == [1]


async def test_files_are_added_changed_renamed_and_removed(rules, watcher, outcomes):
    async with watcher:
        assert await outcomes.next() == []
        (rules / "a.yaml").write_text(rule("a"))
        await outcomes.until(["a"])
        (rules / "b.json").write_text(rule("b"))
        await outcomes.until(["a", "b"])
        (rules / "a.yaml").write_text(rule("c"))
        await outcomes.until(["c", "b"])
        (rules / "a.yaml").rename(rules / "z.yaml")
        await outcomes.until(["b", "c"])
        (rules / "z.yaml").unlink()
        await outcomes.until(["b"])
        (rules / "b.json").unlink()
        await outcomes.until([])
    assert outcomes.revisions == sorted(set(outcomes.revisions))
    assert outcomes.threads == {threading.current_thread()}


async def test_as_it_is_by_default_a_change_is_in_force_within_a_second(rules, outcomes):
    took = []
    async with RulesWatcher(rules, outcomes.loaded, outcomes.failed):
        for number in range(3):
            began = time.monotonic()
            put(rules / "a.yaml", rule(f"a{number}"))
            await outcomes.until([f"a{number}"])
            took.append(time.monotonic() - began)
    assert min(took) < 1.0, f"the machine may pause, but not each time: {took}"


async def test_a_file_written_beside_and_renamed_into_place(rules, watcher, outcomes):
    async with watcher:
        for name in "abc":
            (rules / ".new").write_text(rule(name))
            (rules / ".new").rename(rules / "rule.yaml")
            await outcomes.until([name])


async def test_what_the_store_writes(rules, watcher, outcomes):
    async with watcher:
        store = Store(rules)
        await asyncio.to_thread(store.create, parse_documents(rule("a"), "x").documents)
        await outcomes.until(["a"])
        await asyncio.to_thread(store.delete, [("EgressRule", "default", "a")])
        await outcomes.until([])


def config_map(rules, version, name):
    """Swaps the contents as the kubelet does: a new directory, a new link, one rename."""
    (rules / f"..{version}").mkdir()
    (rules / f"..{version}" / "rule.yaml").write_text(rule(name))
    (rules / "..data_tmp").symlink_to(f"..{version}")
    (rules / "..data_tmp").rename(rules / "..data")
    if not (rules / "rule.yaml").is_symlink():
        (rules / "rule.yaml").symlink_to("..data/rule.yaml")


async def test_the_swap_of_a_config_map(rules, watcher, outcomes):
    config_map(rules, 1, "a")
    async with watcher:
        await outcomes.until(["a"])
        for version, name in enumerate("bcd", start=2):
            config_map(rules, version, name)
            await outcomes.until([name])
            shutil.rmtree(rules / f"..{version - 1}")


async def test_a_broken_file_changes_nothing_and_is_told_once(rules, watcher, outcomes):
    put(rules / "a.yaml", rule("a"))
    async with watcher:
        await outcomes.next()
        put(rules / "b.yaml", "kind: [")
        assert "b.yaml:1:8" in await outcomes.next()
        put(rules / "c.yaml", rule("c"))  # the problems are the same as before
        await outcomes.nothing()
        put(rules / "b.yaml", "kind: []")
        assert "b.yaml:1:7" in await outcomes.next()
        (rules / "b.yaml").unlink()
        await outcomes.until(["a", "c"])
    assert outcomes.revisions == [1, 2]


async def test_a_repair_is_told_although_the_rules_are_the_old_ones(rules, watcher, outcomes):
    async with watcher:
        await outcomes.next()
        put(rules / "a.yaml", "kind: [")
        assert "a.yaml" in await outcomes.next()
        (rules / "a.yaml").unlink()
        assert await outcomes.next() == []


async def test_a_start_with_a_broken_directory_is_a_failure_that_can_be_mended(rules, watcher, outcomes):
    put(rules / "a.yaml", "kind: [")
    async with watcher:
        assert "a.yaml" in await outcomes.next()
        put(rules / "a.yaml", rule("a"))
        assert await outcomes.next() == ["a"]


async def test_the_directory_is_removed_and_made_again(rules, watcher, outcomes):
    put(rules / "a.yaml", rule("a"))
    async with watcher:
        await outcomes.next()
        for name in "bc":
            shutil.rmtree(rules)
            # A file may go first: an empty directory is a good load.
            while "does not exist" not in str(await outcomes.next()):
                pass
            rules.mkdir()
            put(rules / "a.yaml", rule(name))
            await outcomes.until([name])
            put(rules / "b.yaml", rule("x"))
            await outcomes.until([name, "x"])


async def test_the_directory_is_renamed_away_and_replaced(rules, watcher, outcomes, tmp_path):
    async with watcher:
        await outcomes.next()
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "b.yaml").write_text(rule("b"))
        rules.rename(tmp_path / "old")
        (tmp_path / "new").rename(rules)
        await outcomes.until(["b"])
        put(rules / "c.yaml", rule("c"))
        await outcomes.until(["b", "c"])


async def test_the_directory_is_a_link_that_is_swapped(rules, watcher, outcomes, tmp_path):
    rules.rmdir()
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "rule.yaml").write_text(rule(name))
    rules.symlink_to("a")
    async with watcher:
        await outcomes.until(["a"])
        for name in "bc":
            (tmp_path / "link").symlink_to(name)
            (tmp_path / "link").rename(rules)
            await outcomes.until([name])
            put(rules / "x.yaml", rule("x"))
            await outcomes.until([name, "x"])


async def test_the_directory_does_not_exist_yet(rules, watcher, outcomes):
    rules.rmdir()
    async with watcher:
        assert "does not exist" in await outcomes.next()
        rules.mkdir()
        await outcomes.until([])
        put(rules / "a.yaml", rule("a"))
        await outcomes.until(["a"])


async def test_not_even_the_parent_exists_yet(tmp_path, outcomes):
    directory = tmp_path / "x" / "y" / "rules"
    async with RulesWatcher(directory, outcomes.loaded, outcomes.failed, poll_interval=0.2):
        assert "does not exist" in await outcomes.next()
        directory.mkdir(parents=True)
        await outcomes.until([])
        (directory / "a.yaml").write_text(rule("a"))
        await outcomes.until(["a"])


async def test_a_link_above_the_directory_is_swapped(tmp_path, outcomes):
    for name in "ab":
        (tmp_path / name / "rules").mkdir(parents=True)
        (tmp_path / name / "rules" / "rule.yaml").write_text(rule(name))
    (tmp_path / "current").symlink_to("a")
    async with RulesWatcher(tmp_path / "current" / "rules", outcomes.loaded, outcomes.failed, poll_interval=0.3):
        await outcomes.until(["a"])
        (tmp_path / "link").symlink_to("b")
        (tmp_path / "link").rename(tmp_path / "current")
        await outcomes.until(["b"])
        (tmp_path / "current" / "rules" / "x.yaml").write_text(rule("x"))
        await outcomes.until(["b", "x"])


async def test_what_is_not_a_rule_file_is_not_handed_over(rules, watcher, outcomes):
    async with watcher:
        await outcomes.next()
        (rules / "README.md").write_text("x")
        (rules / ".revision").write_text("1")
        (rules / ".a.yaml.tmp").write_text("kind: [")
        (rules / "sub").mkdir()
        await outcomes.nothing()


async def test_a_file_written_again_as_it_was_is_not_handed_over(rules, watcher, outcomes):
    put(rules / "a.yaml", rule("a"))
    async with watcher:
        await outcomes.next()
        put(rules / "a.yaml", rule("a"))
        await outcomes.nothing()


async def test_a_burst_of_changes_ends_in_the_last(rules, watcher, outcomes):
    async with watcher:
        for number in range(50):
            (rules / "a.yaml").write_text(rule(f"r{number}"))
            if number % 10 == 0:
                await asyncio.sleep(0.01)
        await outcomes.until(["r49"])
        assert len(outcomes.all) < 30


async def test_the_directory_is_made_again_before_anyone_looks(rules, watcher, outcomes):
    # The new directory may well have the inode number of the old one.
    async with watcher:
        await outcomes.next()
        for name in "abcde":
            shutil.rmtree(rules)
            rules.mkdir()
            put(rules / "a.yaml", rule(name))
            await outcomes.until([name])
            put(rules / "b.yaml", rule("x"))
            await outcomes.until([name, "x"])


async def test_an_idle_watcher_is_idle(rules, watcher, outcomes, monkeypatch):
    looks = []

    def counting(directory):
        looks.append(directory)
        return fingerprint(directory)

    monkeypatch.setattr(watch_module, "fingerprint", counting)
    async with watcher:
        put(rules / "a.yaml", rule("a"))
        await outcomes.until(["a"])
        shutil.rmtree(rules)
        rules.mkdir()
        await outcomes.until([])
        await asyncio.sleep(0.5)
        looks.clear()
        await asyncio.sleep(0.5)
        assert len(looks) < 10  # without a rest there are hundreds


async def test_a_watch_that_cannot_begin_raises(rules, outcomes, monkeypatch):
    def fail(_directory):
        raise ZeroDivisionError

    monkeypatch.setattr(watch_module, "fingerprint", fail)
    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        await RulesWatcher(rules, outcomes.loaded, outcomes.failed).start()
    assert asyncio.all_tasks() == before


async def no_thread(*_args, **_kwargs):
    raise RuntimeError("can't start new thread")


@pytest.fixture
def faults():
    return []


@pytest.fixture
def hasty(rules, outcomes, faults):
    """A watcher that tries again soon, and sees changes by itself only."""
    return RulesWatcher(
        rules,
        outcomes.loaded,
        outcomes.failed,
        poll_interval=0.05,
        longest_pause=0.2,
        on_fault=lambda: faults.append(time.monotonic()),
    )


@pytest.mark.parametrize("what", ["no thread", "the look", "the load"])
async def test_a_fault_of_ours_is_told_and_counted_and_does_not_end_the_watch(
    rules, hasty, outcomes, faults, monkeypatch, caplog, what
):
    """Or the old rules would stay in force for good, and nobody would know."""
    target, name, broken = {
        "no thread": (asyncio, "to_thread", no_thread),
        "the look": (watch_module, "fingerprint", lambda _directory: 1 / 0),
        "the load": (watch_module, "load_rules", lambda *_args, **_kwargs: 1 / 0),
    }[what]
    async with hasty:
        await outcomes.next()
        with monkeypatch.context() as patched:
            patched.setattr(target, name, broken)
            put(rules / "a.yaml", rule("a"))
            assert "failed: " in await outcomes.next()
            await until(lambda: len(faults) >= 3, "three faults")
            assert len(outcomes.all) == 2
        await outcomes.until(["a"])
        put(rules / "b.yaml", rule("b"))
        await outcomes.until(["a", "b"])
        faults.clear()
        await asyncio.sleep(0.3)
        assert faults == []
    assert "Traceback" in caplog.text


async def test_after_a_fault_it_is_tried_again_ever_more_rarely(hasty, outcomes, faults, monkeypatch):
    monkeypatch.setattr(watch_module, "awatch", None)  # events would wake it
    async with hasty:
        await outcomes.next()
        monkeypatch.setattr(watch_module, "fingerprint", lambda _directory: 1 / 0)
        await until(lambda: len(faults) >= 9, "nine faults")
    pauses = [after - before for before, after in itertools.pairwise(faults)]
    # Of 0.05, 0.1, 0.2, 0.2, … seconds, and more where the machine pauses as well.
    assert [pauses[0] > 0.045, pauses[1] > 0.095, min(pauses[2:]) > 0.19] == [True] * 3
    assert min(pauses[3:]) < 0.4


async def test_the_same_rules_are_handed_over_again_until_they_are_taken(rules, hasty, outcomes, faults):
    def loaded(snapshot):
        if snapshot.ruleset.rules and len(faults) < 2:
            raise ValueError("not today")
        outcomes.loaded(snapshot)

    hasty._on_loaded = loaded
    async with hasty:
        assert await outcomes.next() == []
        put(rules / "a.yaml", rule("a"))
        assert "was not taken: ValueError('not today')" in await outcomes.next()
        assert await outcomes.next() == ["a"]
    assert len(faults) == 2
    assert outcomes.revisions == [1, 2]


async def test_problems_are_told_again_until_they_are_taken(rules, hasty, outcomes, faults):
    def failed(problems):
        if not faults:
            raise ValueError("not today")
        outcomes.failed(problems)

    hasty._on_failed = failed
    async with hasty:
        await outcomes.next()
        put(rules / "a.yaml", "kind: [")
        assert "a.yaml:1:8" in await outcomes.next()
        await outcomes.nothing()
    assert len(faults) == 1


async def test_a_fault_that_cannot_be_counted_does_not_end_the_watch(rules, hasty, outcomes, monkeypatch, caplog):
    hasty._on_fault = lambda: 1 / 0
    async with hasty:
        await outcomes.next()
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "to_thread", no_thread)
            put(rules / "a.yaml", rule("a"))
            assert "can't start new thread" in await outcomes.next()
        await outcomes.until(["a"])
    assert "was not counted" in caplog.text


async def test_a_callback_that_raises_does_not_end_the_watch(rules, outcomes, caplog):
    def fail(_loaded):
        outcomes._add("raised")
        raise ValueError("not today")

    async with RulesWatcher(rules, fail, outcomes.failed):
        await outcomes.next()
        put(rules / "a.yaml", rule("a"))
        assert await outcomes.next() == "raised"
    assert "not today" in caplog.text


async def test_a_loader_that_raises_is_a_failure_and_does_not_end_the_watch(rules, outcomes, monkeypatch, caplog):
    real = watch_module.load_rules

    def fail(*_args, **_kwargs):
        raise ZeroDivisionError

    async with RulesWatcher(rules, outcomes.loaded, outcomes.failed):
        await outcomes.next()
        monkeypatch.setattr(watch_module, "load_rules", fail)
        put(rules / "a.yaml", rule("a"))
        assert "loading failed: ZeroDivisionError()" in await outcomes.next()
        monkeypatch.setattr(watch_module, "load_rules", real)
        put(rules / "b.yaml", rule("b"))
        await outcomes.until(["a", "b"])
    assert "ZeroDivisionError" in caplog.text


async def test_the_event_loop_goes_on_while_rules_are_loaded(rules, outcomes, monkeypatch):
    loading, turned = threading.Event(), threading.Event()
    went_on = []

    def slow(*_args, **_kwargs):
        loading.set()
        went_on.append(turned.wait(PATIENCE))
        raise ZeroDivisionError

    monkeypatch.setattr(watch_module, "load_rules", slow)
    watcher = RulesWatcher(rules, outcomes.loaded, outcomes.failed)
    starting = asyncio.create_task(watcher.start())
    await until(loading.is_set, "the load that is held")
    turned.set()
    await starting
    await watcher.stop()
    assert went_on == [True]


async def test_stop_leaves_no_task_and_no_later_call(rules, watcher, outcomes):
    before = asyncio.all_tasks()
    await watcher.start()
    assert asyncio.all_tasks() != before
    await watcher.stop()
    assert asyncio.all_tasks() == before
    put(rules / "a.yaml", rule("a"))
    await outcomes.nothing()
    await watcher.stop()  # again is harmless


async def test_a_stop_in_the_middle_of_a_load(rules, outcomes, monkeypatch):
    real = watch_module.load_rules

    loading, go_on = threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        loading.set()
        go_on.wait(PATIENCE)
        return real(*args, **kwargs)

    monkeypatch.setattr(watch_module, "load_rules", slow)
    before = asyncio.all_tasks()
    watcher = RulesWatcher(rules, outcomes.loaded, outcomes.failed)
    starting = asyncio.create_task(watcher.start())
    await until(loading.is_set, "the load that is held")
    await watcher.stop()
    await starting
    go_on.set()
    await asyncio.sleep(0.2)
    assert asyncio.all_tasks() == before
    assert outcomes.all == []


async def test_a_start_that_is_given_up_leaves_no_task(rules, outcomes, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(watch_module, "load_rules", lambda *_, **__: go_on.wait(PATIENCE))
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(RulesWatcher(rules, outcomes.loaded, outcomes.failed).start(), 0.1)
    assert asyncio.all_tasks() == before
    go_on.set()


async def test_it_starts_only_once_but_again_after_a_stop(rules, outcomes):
    watcher = RulesWatcher(rules, outcomes.loaded, outcomes.failed)
    async with watcher:
        with pytest.raises(RuntimeError):
            await watcher.start()
    put(rules / "a.yaml", rule("a"))
    async with watcher:
        assert outcomes.all == [[], ["a"]]


def test_a_fingerprint_sees_what_a_size_does_not(rules):
    (rules / "a.yaml").write_text("1")
    first = fingerprint(str(rules))
    assert fingerprint(str(rules)) == first
    (rules / "a.yaml").write_text("2")
    os.utime(rules / "a.yaml", ns=(1, 1))
    assert fingerprint(str(rules)) != first
    assert fingerprint(str(rules)).directory == first.directory
    assert fingerprint(str(rules / "no")).directory != first.directory


async def test_nothing_else_is_loaded_while_the_outcome_is_taken_in(tmp_path, monkeypatch):
    """And what was in force before is let go of when the new rules have been taken in, beside the loop."""
    outcomes = Outcomes()
    go_on = asyncio.Event()
    gone = []

    async def take_in(loaded):
        outcomes.loaded(loaded)
        await go_on.wait()

    def let_go(parts):
        gone.extend(part.name for part in parts if isinstance(part, EgressRule))
        assert threading.current_thread() is not threading.main_thread()
        really(parts)
        assert parts == []

    really = watch_module.let_go
    monkeypatch.setattr(watch_module, "let_go", let_go)
    put(tmp_path / "a.yaml", rule("a"))
    watcher = RulesWatcher(tmp_path, take_in, outcomes.failed, poll_interval=0.05)
    go_on.set()
    async with watcher:
        await outcomes.until(["a"])
        go_on.clear()
        put(tmp_path / "a.yaml", rule("b"))
        await outcomes.until(["b"])
        put(tmp_path / "a.yaml", rule("c"))
        await asyncio.sleep(0.3)
        assert (outcomes.all, gone) == ([["a"], ["b"]], [])
        go_on.set()
        await outcomes.until(["c"])
        assert gone[0] == "a"


async def test_what_was_read_before_is_not_read_again(tmp_path, monkeypatch):
    put(tmp_path / "a.yaml", rule("a"))
    cache = RulesCache()
    first = load_rules(tmp_path, revision=1, cache=cache)
    monkeypatch.setattr(load_module, "read_rules", None)
    seen = []
    async with RulesWatcher(tmp_path, seen.append, print, cache=cache):
        pass
    assert seen == [first]
    assert seen[0].ruleset is first.ruleset


async def test_of_very_many_files_polling_rests_as_long_as_a_look_is_dear(rules, monkeypatch):
    looks = []

    def look(directory):
        looks.append(time.monotonic())
        return fingerprint(directory), 0.02

    monkeypatch.setattr(watch_module, "_look", look)
    monkeypatch.setattr(watch_module, "awatch", None)  # events would wake it
    async with RulesWatcher(rules, print, print, poll_interval=0.01):
        await asyncio.sleep(0.6)
    assert len(looks) <= 3
