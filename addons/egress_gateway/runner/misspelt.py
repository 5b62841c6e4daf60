"""Flags that there are none of, each with the one that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

OF_THE_SCRIPT = ("--rules", "--metrics-listen", "--access-log")
"""Flags that scripts/gateway itself turns into options; here they arrive only misspelt."""


def told(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Of arguments that were not understood: `--wrokers=2 (did you mean --workers?)`."""
    flags = [flag for flag in (*OF_THE_SCRIPT, *known) if flag.startswith("--")]
    return ", ".join(argument + _hint(argument.partition("=")[0], flags) for argument in unknown)


def _hint(name: str, flags: list[str]) -> str:
    if not name.startswith("-") or name in flags:
        return ""
    near = get_close_matches(name, flags, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
