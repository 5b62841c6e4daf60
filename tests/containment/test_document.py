"""The report for programs."""

from __future__ import annotations

import json

from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.document import document
from egress_gateway.containment.outcome import Outcome, Status, Told, Verdict
from egress_gateway.containment.place import Place
from egress_gateway.containment.run import Report


def test_it_is_an_object_with_the_verdict_the_counts_the_gateway_and_the_rows() -> None:
    outcomes = (
        Outcome("HTTP", "IPv4", "203.0.113.9:80", Verdict(Status.OPEN, Told.ANSWERED, "HTTP 200"), 7),
        Outcome("all of IPv6", "IPv6", "", Verdict(Status.UNTESTED, Told.LOCAL, "no route"), 0),
    )
    report = Report(outcomes, {Family.V4: Place(2, ("10.0.0.1",), "10.0.0.7", found=False)})
    assert json.loads(document(report)) == {
        "contained": False,
        "summary": {"stopped": 0, "open": 1, "broken": 0, "untested": 1, "works": 0},
        "gateway": {"IPv4": {"addresses": ["10.0.0.1"], "hops": 2, "found": False}},
        "rows": [
            {
                "check": "HTTP",
                "family": "IPv4",
                "target": "203.0.113.9:80",
                "status": "open",
                "told": "answered",
                "how": "HTTP 200",
                "milliseconds": 7,
            },
            {
                "check": "all of IPv6",
                "family": "IPv6",
                "target": "",
                "status": "untested",
                "told": "local",
                "how": "no route",
                "milliseconds": 0,
            },
        ],
    }
