"""The report for programs."""

from __future__ import annotations

import json
from typing import Any

from .outcome import Outcome, Status
from .run import Report


def document(report: Report) -> str:
    """A JSON object: `contained`, `summary`, `gateway` and `rows`."""
    summary = {status.value: report.count(status) for status in Status}
    gateway = {
        family.value: {"addresses": list(place.addresses), "hops": place.hops, "found": place.found}
        for family, place in report.places.items()
    }
    rows = [_row(outcome) for outcome in report.outcomes]
    return json.dumps({"contained": report.contained, "summary": summary, "gateway": gateway, "rows": rows}, indent=2)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "check": outcome.check,
        "family": outcome.family,
        "target": outcome.target,
        "status": outcome.verdict.status.value,
        "told": outcome.verdict.told.value,
        "how": outcome.verdict.how,
        "milliseconds": outcome.milliseconds,
    }
