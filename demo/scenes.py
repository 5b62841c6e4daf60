"""Scenes that both stories have."""

from __future__ import annotations

from collections import Counter

from .base_stage import ROOT, BaseStage
from .telling import labels_of


def create_the_rule(stage: BaseStage) -> None:
    rule = (ROOT / stage.rule_file).read_text(encoding="utf-8")
    stage.console.command(f"grep -v '^#' {stage.rule_file}")
    stage.console.output("\n".join(line for line in rule.splitlines() if not line.startswith("#")))
    stage.egressctl("create", "-f", stage.rule_file)
    seconds = stage.metrics.wait_until_rules(1)
    stage.check(
        seconds is not None,
        f"in force {(seconds or 0) * 1000:.0f} ms after egressctl has ended, without a restart",
        "the rule never came in force",
    )


def delete_the_rule(stage: BaseStage) -> None:
    stage.metrics.scrape()  # the series of a rule go with it
    deleted = stage.egressctl("delete", "egressrule", "googleapis")
    stage.check("Deleted config: egressrule googleapis" in deleted, "deleted", deleted)
    seconds = stage.metrics.wait_until_rules(0)
    stage.check(
        seconds is not None,
        f"out of force {(seconds or 0) * 1000:.0f} ms after egressctl has ended",
        "the rule stays in force",
    )


def read_the_metrics(stage: BaseStage) -> None:
    check, metrics = stage.check, stage.metrics
    metrics.scrape()
    decisions = metrics.seen("egress_decisions_total")
    mismatches = metrics.seen("egress_identity_mismatches_total")
    requests = _requests_by_destination(stage)
    stage.console.output("\n".join(f"{series} {value}" for series, value in [*sorted(decisions), *sorted(mismatches)]))
    stage.console.output("\n".join(f"{series} {value}" for series, value in sorted(requests.items())))
    denied = refusals_counted(stage)
    total = denied.total()
    check(denied == stage.refusals, f"{total} refusals counted, each one that a client was told", denied)
    allowed = [series for series, _ in decisions if labels_of(series)["action"] == "allow"]
    check(
        bool(allowed) and all(labels_of(series)["rule"] == "default/googleapis" for series in allowed),
        "everything that passed, passed by default/googleapis",
        allowed,
    )


def refusals_counted(stage: BaseStage) -> Counter[str]:
    """By reason, as of the last time that the metrics were scraped; without DNS, which resolvers ask as often as they
    like."""
    denied: Counter[str] = Counter()
    for series, value in stage.metrics.seen("egress_decisions_total", action="deny"):
        labels = labels_of(series)
        if labels["protocol"] != "dns":
            denied[labels["reason"]] += value
    return denied


def _requests_by_destination(stage: BaseStage) -> Counter[str]:
    """istio_requests_total, summed over all but the labels that this story is about."""
    shown = ("destination_service_name", "response_code")
    found: Counter[str] = Counter()
    for series, value in stage.metrics.seen("istio_requests_total"):
        labels = labels_of(series)
        found["istio_requests_total{…," + ",".join(f'{name}="{labels[name]}"' for name in shown) + "}"] += value
    return found
