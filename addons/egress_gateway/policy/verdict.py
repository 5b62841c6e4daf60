"""The answer to a `Request`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .reason import Reason
from .rule import EgressRule


class Treatment(StrEnum):
    """What to do with a connection or request."""

    REFUSE = "refuse"
    AWAIT = "await"
    """The destination is allowed; what is done there hangs on the client's first bytes. Nothing may leave yet."""
    FORWARD = "forward"
    """Plain HTTP to the destination."""
    ORIGINATE = "originate"
    """Plain HTTP from the client, verified TLS to the destination."""
    PASSTHROUGH = "passthrough"
    """TLS from the client, undecrypted to the destination."""
    BYTES = "bytes"
    """Whatever the client sends, to the destination."""


@dataclass(frozen=True, slots=True)
class Verdict:
    treatment: Treatment
    reason: Reason
    rule: EgressRule | None = None
    """The rule that allowed or denied; None where no rule was found."""
    port: int = 0
    """The port to dial: the rule's `targetPort`, or the one asked for."""

    @property
    def allowed(self) -> bool:
        return self.treatment is not Treatment.REFUSE

    @property
    def rule_key(self) -> str:
        return self.rule.key if self.rule else ""


def refuse(reason: Reason, rule: EgressRule | None = None) -> Verdict:
    """A refusal for `reason`."""
    return Verdict(Treatment.REFUSE, reason, rule)
