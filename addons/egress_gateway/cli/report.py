"""What `explain` found, as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TextIO

from egress_gateway.policy.address_check import Agreement
from egress_gateway.policy.hostname import format_authority
from egress_gateway.policy.reason import ANSWERS
from egress_gateway.policy.request import Spoken
from egress_gateway.policy.rule import EgressRule
from egress_gateway.policy.ruleset import Conflict
from egress_gateway.policy.verdict import Treatment

from .questions import Finding, Question
from .terminal import paint

_SPEAKS = {
    Spoken.HTTP: "plain HTTP",
    Spoken.TLS: "TLS",
    Spoken.HTTP2: "HTTP/2 without TLS",
    Spoken.OTHER: "neither HTTP nor TLS",
}

_DOES = {
    Treatment.FORWARD: "plain HTTP: forwards each request to {to}",
    Treatment.ORIGINATE: "TLS origination: opens verified TLS to {to} and forwards each request inside it",
    Treatment.PASSTHROUGH: "passthrough: hands the TLS of the application to {to}, undecrypted",
    Treatment.BYTES: "bytes: hands everything to {to} as it comes",
}

_AGREEMENT = {
    Agreement.MATCH: "one of the host's addresses, and the only one that is dialled",
    Agreement.MISMATCH: "not one of the host's addresses; refused (check: enforce)",
    Agreement.REDIALLED: "not one of the host's addresses; the host's own is dialled instead (check: redial)",
    Agreement.AUDITED: "not one of the host's addresses; the host's own is dialled instead, and it is counted "
    "(check: audit)",
}


def as_text(question: Question, findings: Sequence[Finding], stream: TextIO) -> str:
    """A paragraph a finding, in the colours of `stream`."""
    return "\n\n".join("\n".join(_paragraph(question, finding, stream)) for finding in findings)


def _paragraph(question: Question, finding: Finding, stream: TextIO) -> list[str]:
    verdict = finding.verdict
    word = paint("allowed", "green", stream) if verdict.allowed else paint("denied", "red", stream)
    spoken = " or ".join(_SPEAKS[form] for form in finding.forms)
    rows = [("reason", verdict.reason if verdict.allowed else _why(finding))]
    if verdict.rule:
        rows.append(("rule", _place(verdict.rule)))
    if verdict.allowed:
        rows.append(("gateway", _DOES[verdict.treatment].format(to=_to(finding))))
    if finding.agreement is not None:
        rows.append(("dialled", f"{question.dialled}: {_AGREEMENT[finding.agreement]}"))
    rows += [("address", f"{address}: may be reached") for address in finding.judged.allowed]
    rows += [("address", f"{address}: refused, {kind}") for address, kind in finding.judged.refused]
    if finding.nearest is not None and finding.nearest is not verdict.rule:
        rows.append(("nearest", _place(finding.nearest)))
    if finding.hint:
        rows.append(("hint", finding.hint))
    rows += [("overruled", _overruled(conflict)) for conflict in finding.overruled]
    lines = [f"{_asked(question, finding)}, the application speaks {spoken}: {word}"]
    lines += [f"  {label + ':':<11}{text}" for label, text in rows]
    if finding.smallest_rule:
        lines.append("  the smallest rule that would allow it, for `egressctl create -f -`:")
        lines += [f"    {line}" for line in finding.smallest_rule.splitlines()]
    return lines


def _asked(question: Question, finding: Finding) -> str:
    """The destination as it was written, printable, with its canonical form where that is another."""
    written = question.host.encode("unicode_escape").decode("ascii")
    if finding.host is None:
        return f"{written} port {question.port}"
    canonical = format_authority(finding.host, question.port)
    return canonical if canonical == f"{written}:{question.port}" else f"{canonical} (written {written})"


def _to(finding: Finding) -> str:
    return format_authority(finding.host, finding.verdict.port) if finding.host is not None else ""


def _why(finding: Finding) -> str:
    reason = finding.verdict.reason
    return f"{reason}: {ANSWERS[reason].sentence}" + (f" ({finding.detail})" if finding.detail else "")


def _place(rule: EgressRule) -> str:
    return f"{rule.key} ({rule.source})" if rule.source else rule.key


def _overruled(conflict: Conflict) -> str:
    return f"{_place(conflict.loser)} has no effect here, because {conflict.winner.key} comes first"


def as_json(question: Question, findings: Sequence[Finding]) -> str:
    """One object: what was asked, whether all of it is allowed, and an answer a finding."""
    return json.dumps(
        {
            "host": question.host,
            "port": question.port,
            "protocol": question.protocol,
            "allowed": all(finding.verdict.allowed for finding in findings),
            "answers": [_finding(finding) for finding in findings],
        },
        indent=2,
    )


def _finding(finding: Finding) -> dict[str, Any]:
    verdict = finding.verdict
    return {
        "speaks": [{Spoken.OTHER: "tcp"}.get(form, str(form)) for form in finding.forms],
        "allowed": verdict.allowed,
        "reason": str(verdict.reason),
        "sentence": ANSWERS[verdict.reason].sentence,
        "detail": finding.detail,
        "canonical_host": None if finding.host is None else str(finding.host),
        "rule": _rule(verdict.rule),
        "treatment": str(verdict.treatment),
        "dialled_port": verdict.port if verdict.allowed else None,
        "address_check": finding.agreement and str(finding.agreement),
        "addresses": {
            "allowed": [str(address) for address in finding.judged.allowed],
            "refused": [{"address": str(address), "class": str(kind)} for address, kind in finding.judged.refused],
        },
        "nearest": _rule(finding.nearest),
        "hint": finding.hint,
        "overruled": [_rule(conflict.loser) for conflict in finding.overruled],
        "smallest_rule": finding.smallest_rule,
    }


def _rule(rule: EgressRule | None) -> dict[str, Any] | None:
    if rule is None:
        return None
    return {
        "namespace": rule.namespace,
        "name": rule.name,
        "file": rule.source.file if rule.source else None,
        "line": rule.source.line if rule.source else None,
    }
