"""The bench of decisions: that it runs, and that it notices when the promise is broken."""

import functools
import json
from collections.abc import Iterator
from types import ModuleType

import pytest

from bench import decide as decisions
from egress_gateway.policy.decide import decide
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Verdict, refuse

pytestmark = pytest.mark.slow  # a hundred thousand rules are built for each

_QUICK = ["--rounds", "2", "--repeat", "2", "--load", "0"]


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    # They never change, and are the same for all: building them takes longer than asking.
    with pytest.MonkeyPatch.context() as patch:
        for name in ("make_ruleset", "make_kinds"):
            patch.setattr(decisions, name, functools.cache(getattr(decisions, name)))
        yield decisions


def waste(steps: int) -> None:
    for _ in range(steps):
        pass


def test_json_has_all_figures_and_the_exit_status_follows_from_them(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    status = bench.main([*_QUICK, "--json", "--load", "200"])
    said = json.loads(capsys.readouterr().out)
    assert said["rounds"] == 2
    for size in ("10", "1,000", "100,000", "100,000 varied"):
        for mode in ("reused", "fresh"):
            assert said["microseconds"][size][mode]["all kinds"] > 0
    assert said["ratio"]["10"]["reused"]["all kinds"] == 1
    assert said["load"]["rules"] == 200
    assert status == (1 if said["problems"] else 0)  # a busy machine may well break the promise in two rounds


def test_the_table_names_every_kind_of_question(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(_QUICK)
    table = capsys.readouterr().out
    for kind in ("exact name", "wildcard", "inside a label", "address", "other port", "other name", "all kinds"):
        assert f"  {kind} " in table


def test_a_cost_that_grows_with_the_rules_is_a_failure(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def growing(ruleset: RuleSet, request: Request) -> Verdict:
        waste(len(ruleset.rules) // 200)
        return decide(ruleset, request)

    assert bench.main(_QUICK, growing) == 1
    assert "100,000 rules cost" in capsys.readouterr().err


def test_a_cost_that_is_high_with_any_number_of_rules_is_a_failure(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(ruleset: RuleSet, request: Request) -> Verdict:
        waste(2000)
        return decide(ruleset, request)

    assert bench.main(_QUICK, slow) == 1
    assert "a decision costs" in capsys.readouterr().err


def test_a_wrong_verdict_is_not_measured(bench: ModuleType) -> None:
    def wrong(ruleset: RuleSet, request: Request) -> Verdict:
        return refuse(Reason.NO_RULE)

    with pytest.raises(ValueError, match="exact name"):
        bench.main(_QUICK, wrong)


def test_help_says_what_the_exit_status_means(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["--help"])
    assert ended.value.code == 0
    assert "exit status" in capsys.readouterr().out
