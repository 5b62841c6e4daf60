"""The answer to a request."""

from dataclasses import FrozenInstanceError

import pytest

from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import Treatment, Verdict, refuse
from support.relay_server import rule


@pytest.mark.parametrize("treatment", Treatment)
def test_only_a_refusal_is_not_allowed(treatment: Treatment) -> None:
    assert Verdict(treatment, Reason.ALLOWED).allowed is (treatment is not Treatment.REFUSE)


def test_a_refusal_carries_its_reason_and_its_rule() -> None:
    made = rule("a.example", (443, "https"), name="a")
    assert refuse(Reason.NO_RULE) == Verdict(Treatment.REFUSE, Reason.NO_RULE, None, 0)
    assert refuse(Reason.NO_RULE).rule_key == ""
    assert refuse(Reason.DENIED_BY_RULE, made).rule_key == "default/a"


def test_a_verdict_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        refuse(Reason.NO_RULE).treatment = Treatment.BYTES  # type: ignore[misc]  # that is what is tested
