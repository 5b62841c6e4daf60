"""What an answer means, if it is the gateway that gave it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Callable


class Meaning(Enum):
    REFUSAL = "what the gateway says to what no rule allows"
    SIGNED = "a refusal that nobody but an egress gateway gives"
    FAILURE = "the gateway refuses since something is wrong with it"
    OTHER = "anything else"


@dataclass(frozen=True)
class Reading:
    """What an answer means if the gateway gave it, and its gist in a few words."""

    meaning: Meaning
    words: str


Read = Callable[[bytes], Reading]
