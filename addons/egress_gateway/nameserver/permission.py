"""Which names a client may ask for, and which of their addresses it may be told. Pure.

- A name may be asked for where some rule allows it, on whatever port: what is done with an address is judged when it is
  dialled. Where no rule allows it and one denies it, the denial is the reason.
- A question reaches whoever serves the name's zone, and every label in it is a message to them. So what a wildcard's
  star stands for has a limit for the length of a label; a name that a rule spells out has none.
- An address may be told where at least one of those rules may reach it, by the same judgement as before dialling.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from egress_gateway.policy.addresses import Network
from egress_gateway.policy.destination import Judged, judge, plain
from egress_gateway.policy.hostname import Address, Hostname
from egress_gateway.policy.index import matches
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import EgressRule, ExactName, Wildcard
from egress_gateway.policy.ruleset import RuleSet, Slot


@dataclass(frozen=True, slots=True)
class Denied:
    reason: Reason
    rule: EgressRule | None = None


@dataclass(frozen=True, slots=True)
class Permission:
    """The slots that allow the name, by port; at least one."""

    slots: Mapping[int, Slot]

    @property
    def rule(self) -> EgressRule | None:
        """The first rule that allows the name."""
        return next(iter(self.slots.values())).allowed_by

    def reachable(
        self,
        addresses: Sequence[Address],
        *,
        public_ranges: Sequence[Network],
        own_ports: Collection[int],
        is_own: Callable[[Address], bool],
        denies: Callable[[Address, int], bool],
    ) -> Judged:
        """Sorts `addresses` into those that may be told and those that may not. Both keep the order."""
        reached: set[Address] = set()
        judged = Judged((), ())
        left: Sequence[Address] = addresses
        for slot in self.slots.values():
            if not left or slot.allowed_by is None or slot.port is None:
                break
            port = slot.port.dialled

            def is_denied(address: Address, port: int = port) -> bool:
                return denies(address, port)

            judged = judge(slot.allowed_by, left, public_ranges=public_ranges, is_own=is_own, is_denied=is_denied)
            reached.update(one for one in judged.allowed if not (port in own_ports and is_own(one)))
            left = [one for one in left if plain(one) not in reached]
        allowed = tuple(one for one in addresses if plain(one) in reached)
        return Judged(allowed, tuple(pair for pair in judged.refused if pair[0] not in reached))


def may_ask(ruleset: RuleSet, host: Hostname, max_label: int) -> Permission | Denied:
    """Whether some rule allows `host`, whose star stands for no label longer than `max_label`."""
    slots = ruleset.ports_of(host)
    allowing = {port: slot for port, slot in slots.items() if slot.allows}
    if not allowing:
        denied_by = next((slot.denied_by for slot in slots.values() if slot.denied_by is not None), None)
        return Denied(Reason.NO_RULE if denied_by is None else Reason.DENIED_BY_RULE, denied_by)
    if all(len(label) <= max_label for label in host.split(".")):
        return Permission(allowing)
    fitting = {port: slot for port, slot in allowing.items() if _fits(slot.allowed_by, host, max_label)}
    return Permission(fitting) if fitting else Denied(Reason.LABEL_TOO_LONG, Permission(allowing).rule)


def _fits(rule: EgressRule | None, host: Hostname, max_label: int) -> bool:
    """Whether a destination of `rule` matches `host` with no longer label for its star."""
    for destination in rule.destinations if rule is not None else ():
        if not matches(destination, host):
            continue
        if isinstance(destination, ExactName):
            return True
        if isinstance(destination, Wildcard):
            star = host.removesuffix(destination.suffix)
            if all(len(label) <= max_label for label in star.split(".")):
                return True
    return False
