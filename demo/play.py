"""Plays the acts of a story, one after the other, until one differs from it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from .base_stage import BaseStage, Differs


def play[S: BaseStage](stage: S, acts: Sequence[tuple[str, Callable[[S], None]]]) -> int:
    """Returns the exit status."""
    for number, (title, act) in enumerate(acts, 1):
        stage.console.act(number, title)
        try:
            act(stage)
        except Differs as difference:
            return _failed(stage, f"act {number} differs from the story; this does not hold: {difference}")
        except Exception as error:
            return _failed(stage, f"act {number} differs from the story: {type(error).__name__}: {error}")
    stage.console.end("That is the story, and every line of it was checked.")
    return 0


def _failed(stage: BaseStage, what: str) -> int:
    print(f"\nThe gateway's last words:\n{stage.gateway.last_words()}\n", file=sys.stderr)
    print(f"demo: {what}", file=sys.stderr)
    return 1
