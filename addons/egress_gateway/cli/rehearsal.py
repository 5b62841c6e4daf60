"""`--dry-run`: the change is made to a copy of the rules directory, so that rehearsal and act are alike."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import Failure

if TYPE_CHECKING:
    from egress_gateway.config.problem import Problem
    from egress_gateway.config.store import Store, Written


def rehearsed(directory: Path, act: Callable[[Store], Written]) -> Written:
    """What `act` would answer for `directory`, which is left as it is; raises what `act` would raise."""
    from egress_gateway.config.problem import RuleErrors
    from egress_gateway.config.store import Store, Written

    if not os.access(directory, os.W_OK | os.X_OK):
        raise Failure(f"{directory}: permission denied (the rules directory must be writable)")
    with tempfile.TemporaryDirectory(prefix="egressctl-") as scratch:
        copy = Path(scratch, "rules")
        copy.mkdir()
        for entry in os.scandir(directory):
            if entry.is_symlink():
                # The store never writes through a link; in the copy it is to refuse the same ones.
                (copy / entry.name).symlink_to(os.path.realpath(entry.path))
            elif entry.is_file():
                shutil.copy2(entry.path, copy / entry.name)

        def real(text: str) -> str:
            return text.replace(str(copy), str(directory))

        def in_place(problem: Problem) -> Problem:
            return replace(problem, file=real(problem.file), message=real(problem.message))

        try:
            written = act(Store(copy))
        except RuleErrors as problem:
            raise type(problem)(map(in_place, problem.problems)) from None
        except Exception as problem:
            problem.args = tuple(real(str(part)) for part in problem.args)
            raise
        changes = tuple(replace(change, file=real(change.file)) for change in written.changes)
        return Written(changes, tuple(map(in_place, written.warnings)))
