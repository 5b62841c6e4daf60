"""The rules in force: an immutable snapshot with its indexes, replaced as a whole by one assignment.

Rules add up, so every destination keeps, for each port, one *slot*. Where two rules want different treatment of the
same destination and port, the one with the smaller key `namespace/name` wins the slot and the other is listed in
`conflicts`. Between destinations that match the same host the more specific one wins (see `index`), and a `deny` beats
every `allow` that matches as specifically or less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from .hostname import Address, Host, Hostname
from .index import DestinationIndex
from .port_index import PortIndex
from .rule import Destination, EgressRule, ExactName, Port, RuleAction, Wildcard
from .verdict import Verdict


@dataclass(slots=True)
class Slot:
    """What the rules say of one destination and port. Changed only while the rule set is built, but for `verdicts`."""

    allowed_by: EgressRule | None = None
    port: Port | None = None
    denied_by: EgressRule | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """Answers already given, by what was spoken: a cache of a pure function, so that deciding allocates nothing."""

    @property
    def allows(self) -> bool:
        return self.allowed_by is not None and self.denied_by is None


Ports = dict[int, Slot]


@dataclass(frozen=True, slots=True)
class Conflict:
    """`loser` has no effect on `destination` and `port`, because `winner` treats them differently."""

    destination: str
    port: int
    winner: EgressRule
    loser: EgressRule

    def __str__(self) -> str:
        return (
            f"{self.loser.key} has no effect on {self.destination} port {self.port}: "
            f"{self.winner.key} treats it differently and comes first (the smaller namespace/name wins)"
        )


class RuleSet:
    """A frozen set of rules. Build it with `RuleSet.build`; `RuleSet.empty()` denies everything."""

    __slots__ = ("_index", "_neighbours", "by_port", "conflicts", "revision", "rules", "token")

    def __init__(self, rules: tuple[EgressRule, ...], revision: int) -> None:
        self.rules = rules
        self.revision = revision
        self.conflicts: tuple[Conflict, ...] = ()
        self.by_port = PortIndex()
        self._index: DestinationIndex[Ports] = DestinationIndex()
        self._neighbours: dict[str, EgressRule] = {}
        self.token = object()
        """Stands for this rule set, for whoever remembers what it has said and must not keep it for that."""

    @classmethod
    def empty(cls) -> RuleSet:
        """The rule set that denies everything."""
        return cls((), 0)

    @classmethod
    def build(
        cls, rules: Iterable[EgressRule], revision: int = 0, between: Callable[[], None] = lambda: None
    ) -> RuleSet:
        """Indexes `rules`; their order does not matter. `between` is called after each."""
        # Among rules that want the same thing, one that may reach private addresses stands for all: rules add up.
        # (Two sorts by a string each take a fifth of one by pairs, and a sort is one long act.)
        ordered = sorted(sorted(rules, key=attrgetter("name")), key=attrgetter("namespace"))
        made = cls(tuple(ordered), revision)
        conflicts: list[Conflict] = []
        for rule in ordered:
            for destination in rule.destinations:
                made._remember_neighbour(destination, rule)
                made.by_port.add(destination, rule)
                ports = made._index.setdefault(destination, {})
                for port in rule.ports:
                    _fill(ports.setdefault(port.number, Slot()), rule, port, destination, conflicts)
            between()
        made.conflicts = tuple(conflicts)
        return made

    def parts(self) -> list[object]:
        """Everything that is large in it, in small pieces: whoever holds them lets go of the rest at no cost."""
        return [*self.rules, *self._index.values()]

    def matching(self, host: Host) -> list[Ports]:
        """What is said of the ports of every destination that matches `host`, most specific destination first."""
        return self._index.lookup(host)

    def find(self, host: Host, port: int) -> Slot | None:
        """The slot of the most specific destination that matches `host` and speaks of `port`."""
        return self.find_exact(host, port) or first(self.matching(host), port)

    def find_exact(self, host: Host, port: int) -> Slot | None:
        """The slot of `host` itself and `port`, which nothing is more specific than; None where it is an address."""
        if not isinstance(host, str):
            return None
        ports = self._index.exact.get(host)
        return None if ports is None else ports.get(port)

    def denies(self, address: Address, port: int) -> bool:
        """Whether a rule denies `address` itself on `port`."""
        slot = self.find(address, port)
        return slot is not None and slot.denied_by is not None

    def ports_of(self, host: Host) -> Ports:
        """Every port that any destination matching `host` speaks of, with the slot that counts."""
        return merged(self._index.lookup(host))

    def knows(self, host: Host) -> bool:
        """Whether any rule allows `host`, on whatever port."""
        return allows_any(self._index.lookup(host))

    def find_below(self, host: Host, port: int) -> EgressRule | None:
        """A rule that allows `*.host` on `port`, for the hint that a wildcard does not cover its apex."""
        if not isinstance(host, str):
            return None
        # No rule can name a host with a star in it, so only wildcards are found.
        slot = self.find(Hostname(f"*.{host}"), port)
        return slot.allowed_by if slot and slot.allows else None

    def neighbour(self, host: Host) -> EgressRule | None:
        """A rule that allows the same registered name (its last two labels), for hints; None where there is none."""
        return self._neighbours.get(_last_labels(host)) if isinstance(host, str) else None

    def _remember_neighbour(self, destination: Destination, rule: EgressRule) -> None:
        if rule.action is RuleAction.ALLOW and isinstance(destination, ExactName | Wildcard):
            name = destination.name if isinstance(destination, ExactName) else destination.suffix
            if name.strip(".").count(".") >= 1:
                self._neighbours.setdefault(_last_labels(name), rule)


def first(matching: list[Ports], port: int) -> Slot | None:
    """The slot that counts for `port` in `matching` (see `RuleSet.matching`)."""
    for ports in matching:
        if port in ports:
            return ports[port]
    return None


def merged(matching: list[Ports]) -> Ports:
    """Every port that `matching` speaks of, with the slot that counts."""
    found: Ports = {}
    for ports in matching:
        for number, slot in ports.items():
            found.setdefault(number, slot)
    return found


def allows_any(matching: list[Ports]) -> bool:
    """Whether a slot that counts allows something, on whatever port."""
    slots = matching[0] if len(matching) == 1 else merged(matching)
    return any(slot.allowed_by is not None and slot.denied_by is None for slot in slots.values())


def _last_labels(name: str) -> str:
    return ".".join(name.strip(".").rsplit(".", 2)[-2:])


def _fill(slot: Slot, rule: EgressRule, port: Port, destination: Destination, conflicts: list[Conflict]) -> None:
    if rule.action is RuleAction.DENY:
        slot.denied_by = slot.denied_by or rule
    elif slot.allowed_by is None or slot.port is None:
        slot.allowed_by, slot.port = rule, port
    elif (slot.port.treatment_key, slot.allowed_by.check) != (port.treatment_key, rule.check):
        conflicts.append(Conflict(str(destination), port.number, slot.allowed_by, rule))
    elif rule.allow_private and not slot.allowed_by.allow_private:
        slot.allowed_by, slot.port = rule, port
