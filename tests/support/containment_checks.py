"""The checks of `gateway-check` with time enough for every answer, and little for those that nobody gives.

A row ends with its answer, so patience costs nothing where there is one. Where none is to come the row takes all the
time that it has, and cannot be wrong by having too little.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from unittest import mock

from egress_gateway.containment import run as module
from egress_gateway.containment.options import parse
from egress_gateway.containment.outcome import Verdict
from egress_gateway.containment.plan import Check
from egress_gateway.containment.probes.setting import Setting
from egress_gateway.containment.run import Report, run

PATIENT = ("--timeout", "30")
"""For what has an answer."""
type Rows = Collection[tuple[str, str]]
"""By the name of the check, and of the family."""
CUT_SHORT = ("IPv6 headers cut short", "IPv6")
"""What is dropped."""
SILENT = {CUT_SHORT, ("IP protocol 41 (IPv6 in IP)", "IPv6")}
"""What nobody answers where the gateway is in order: a kernel does not reject IPv6 in IPv6 with a word."""

_SOON = 0.2


def run_checks(*arguments: str, silent: Rows = SILENT, silent_at_first: Rows = ()) -> Report:
    """Runs them from where this thread is. Some rows have no answer, or none to their first try."""

    def hurried(check: Check) -> Check:
        def probe(setting: Setting) -> Verdict:
            soon = time.monotonic() + _SOON
            row = check.name, check.family.value
            if row in silent:
                return check.probe(replace(setting, half=soon, deadline=soon + _SOON))
            return check.probe(replace(setting, half=soon) if row in silent_at_first else setting)

        return replace(check, probe=probe)

    plan = module.plan
    with mock.patch.object(module, "plan", lambda *given: [hurried(check) for check in plan(*given)]):
        return run(parse([*PATIENT, *arguments]))
