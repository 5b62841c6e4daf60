"""`check`: every problem and every warning of rule files, for people, editors and CI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .files import operator_errors, parse_files
from .manual import ManualPage
from .options import existing, files_option, output_option, rules_option
from .terminal import answer, problem_line

if TYPE_CHECKING:
    from egress_gateway.config.problem import Problem


@click.command(
    cls=ManualPage,
    examples="""
        egressctl check
        egressctl check -f googleapis.yaml
        git diff --name-only main -- rules | xargs printf -- '-f %s ' | xargs egressctl check
        egressctl check -o json | jq -r '.problems[].message'
    """,
    exit_status="""
        0   no errors; there may be warnings
        1   an error
        2   the command line was not understood
    """,
)
@files_option(required=False)
@output_option("text", "json", default="text")
@rules_option
def check(files: Sequence[str], output: str, directory: Path) -> int:
    """Look for problems in rules.

    Reads the files given, or else the whole rules directory, and writes a line for
    every problem: file:line:column: field: what is wrong (what to write instead).
    Rules that have no effect because another one comes first are warnings. The
    files given are held against one another, not against the rules directory:
    `create --dry-run` does that.
    """
    with operator_errors():
        problems, objects = _in_files(files) if files else _in_directory(existing(directory))
    good = not any(problem.is_error for problem in problems)
    if output == "json":
        answer(json.dumps({"ok": good, "problems": list(map(asdict, problems))}, indent=2))
    else:
        for problem in problems:
            answer(problem_line(problem))
        if not problems:
            answer(f"{objects} object{'' if objects == 1 else 's'}, no problems.")
    return 0 if good else 1


def _in_files(files: Sequence[str]) -> tuple[Sequence[Problem], int]:
    """What is wrong in `files`, and how many objects are sound."""
    from egress_gateway.config.load import conflict_warnings
    from egress_gateway.policy.ruleset import RuleSet

    documents, problems = parse_files(files)
    # Of two objects of one name the second is an error already; that it would also lose to the first helps nobody.
    first = {document.key: document.rule for document in reversed(documents)}
    ruleset = RuleSet.build(first.values())
    return [*problems, *conflict_warnings(ruleset)], len(documents)


def _in_directory(directory: Path) -> tuple[Sequence[Problem], int]:
    from egress_gateway.config.load import load_directory
    from egress_gateway.config.problem import RuleErrors

    try:
        loaded = load_directory(directory)
    except RuleErrors as errors:
        return errors.problems, 0
    return loaded.warnings, len(loaded.documents)
