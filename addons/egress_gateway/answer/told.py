"""What the body of a refusal says, whatever its form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Told:
    """All printable ASCII; empty where there is nothing to say."""

    status: int
    title: str
    """The status in words."""
    target: str
    """What the client asked for."""
    reason: str
    sentence: str
    detail: str
    rule: str
    """`namespace/name` of the rule that allowed, refused, or came nearest."""
    hint: str
    smallest_rule: str
    failed: bool = False
    """It was allowed, and then something went wrong."""

    @property
    def what(self) -> str:
        return "Failed" if self.failed else "Refused"

    @property
    def which_rule(self) -> str:
        return "Allowed by" if self.failed else "Nearest rule"
