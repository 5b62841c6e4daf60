"""Exchanges as they are when they are over; the product fills them in as they go."""

from typing import Any

from egress_gateway.policy.events import Exchange


def exchange(start_time: float = 0.0, **facts: Any) -> Exchange:
    """One with these facts, which must be facts of an exchange."""
    return change(Exchange(start_time), **facts)


def change(made: Exchange, **facts: Any) -> Exchange:
    for name, value in facts.items():
        if name not in Exchange.__annotations__:
            raise TypeError(f"an exchange has no {name}")
        setattr(made, name, value)
    return made
