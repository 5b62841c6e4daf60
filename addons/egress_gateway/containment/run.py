"""Runs all checks at once, so that the whole takes as long as its slowest row: about the timeout, and a third of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from queue import Queue
from typing import Callable

from .attempt.family import Family
from .options import USUAL_TIMEOUT, Options
from .outcome import Outcome, Status, Told, Untested, Verdict
from .place import Place, locate
from .plan import Check, plan
from .probes.setting import Setting

Progress = Callable[[int, int], None]
"""Takes how many checks are done, and how many there are."""


@dataclass(frozen=True)
class Report:
    outcomes: tuple[Outcome, ...]
    places: dict[Family, Place] = field(default_factory=dict)
    """Where the gateway is, for each family that there is a route for."""

    def count(self, status: Status) -> int:
        return sum(outcome.verdict.status is status for outcome in self.outcomes)

    @property
    def contained(self) -> bool:
        """Nothing is open or broken, and something was tried at all."""
        return not self.count(Status.OPEN) and not self.count(Status.BROKEN) and self.count(Status.STOPPED) > 0


def run(options: Options, progress: Progress = lambda done, total: None) -> Report:
    places = _locate(options)
    untested = [_no_way(options, family) for family in options.families if family not in places]
    checks = [check for family, place in places.items() for check in plan(options, family, place)]
    now = time.monotonic()
    settings = {
        family: Setting(place, options.denied_name, now + options.timeout / 2, now + options.timeout)
        for family, place in places.items()
    }
    outcomes = _all_at_once(checks, settings, progress)
    return Report((*outcomes, *untested), places)


def _locate(options: Options) -> dict[Family, Place]:
    found: dict[Family, Place | None] = {}
    # Who gives the checks more time than usual has a slow way, or a slow machine.
    patience = max(1.0, options.timeout / USUAL_TIMEOUT)

    def work(family: Family) -> None:
        hosts = options.targets[family].hosts
        given = options.gateways.get(family)
        found[family] = locate(family, hosts[0], options.denied_name, given, patience) if hosts else None

    threads = [threading.Thread(target=work, args=(family,), daemon=True) for family in options.families]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    places = ((family, found.get(family)) for family in options.families)
    return {family: place for family, place in places if place is not None}


def _no_way(options: Options, family: Family) -> Outcome:
    hosts = options.targets[family].hosts
    how = f"this machine has no route to {hosts[0]}" if hosts else f"no --target has an {family.value} address"
    return Outcome(f"all of {family.value}", family.value, "", Verdict(Status.UNTESTED, Told.LOCAL, how), 0)


def _all_at_once(checks: list[Check], settings: dict[Family, Setting], progress: Progress) -> list[Outcome]:
    done: Queue[tuple[int, Outcome]] = Queue()

    def work(position: int, check: Check) -> None:
        done.put((position, _outcome(check, settings[check.family])))

    for position, check in enumerate(checks):
        threading.Thread(target=work, args=(position, check), daemon=True).start()
    outcomes: dict[int, Outcome] = {}
    progress(0, len(checks))
    while len(outcomes) < len(checks):
        position, outcome = done.get()
        outcomes[position] = outcome
        progress(len(outcomes), len(checks))
    return [outcomes[position] for position in range(len(checks))]


def _outcome(check: Check, setting: Setting) -> Outcome:
    started = time.monotonic()
    try:
        verdict = check.probe(setting)
    except Untested as reason:
        verdict = Verdict(Status.UNTESTED, Told.LOCAL, str(reason))
    except Exception as error:  # a check that failed has proven nothing
        verdict = Verdict(Status.BROKEN, Told.LOCAL, f"could not be tried: {type(error).__name__}: {error}")
    milliseconds = round((time.monotonic() - started) * 1000)
    return Outcome(check.name, check.family.value, check.target, verdict, milliseconds)
