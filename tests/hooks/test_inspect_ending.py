"""How long a client that is dismissed has for the last words, whatever its machine and ours do meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from egress_gateway.hooks.inspect.ending import Gate

LOOKS = {
    "all has arrived": ([500, 0], False),
    "it takes some each time": ([500, 400, 300, 200, 100], True),
    "it has taken nothing once": ([500, 500], True),
    "it has taken nothing twice": ([500, 500, 500], False),
    "it goes on after a rest, each time": ([500, 500, 400, 400, 300, 300], True),
}


@pytest.mark.parametrize(("untaken", "has_time"), LOOKS.values(), ids=LOOKS)
def test_who_takes_nothing_for_a_while_is_given_up(untaken: list[int], has_time: bool) -> None:
    client: Any = SimpleNamespace(on_the_way=untaken[0])
    context: Any = SimpleNamespace(layers=[], options=None)
    gate = Gate(context, client)
    gate._untaken = untaken[0]
    answers = []
    for client.on_the_way in untaken[1:]:
        answers.append(gate._takes_more())
    assert answers == [True] * (len(answers) - 1) + [has_time]
