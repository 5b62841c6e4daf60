"""Which TCP ports are redirected to the gateway: those that allow rules name, whatever the protocol, and 80 and 443.

80 and 443 are there without any rule, so that a refused client is told why. Every other port that no rule names is
refused by the packet filter itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from egress_gateway.config.load import load_directory
from egress_gateway.config.problem import Problem, RuleErrors
from egress_gateway.policy.rule import RuleAction
from egress_gateway.policy.ruleset import RuleSet

from .terminal import Failure

ALWAYS = frozenset({80, 443})


def ports_of(ruleset: RuleSet) -> frozenset[int]:
    allowed = (rule for rule in ruleset.rules if rule.action is RuleAction.ALLOW)
    return ALWAYS.union(port.number for rule in allowed for port in rule.ports)


def read_ports(directory: str) -> frozenset[int]:
    """The ports that the rules in `directory` name. Raises `Failure` when they do not load."""
    try:
        return ports_of(load_directory(directory).ruleset)
    except RuleErrors as error:
        raise Failure(first_of(error.errors)) from None


def first_of(problems: Iterable[Problem]) -> str:
    """One line about what is wrong with the rules."""
    errors = [problem for problem in problems if problem.is_error]
    more = f" (and {len(errors) - 1} more: scripts/egressctl check tells all)" if len(errors) > 1 else ""
    return f"{errors[0]}{more}"


def listed(ports: Iterable[int], most: int = 20) -> str:
    """Ports for people: `80, 443, 8443`, and how many more there are."""
    ordered = sorted(ports)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(map(str, ordered[:most])) + more
