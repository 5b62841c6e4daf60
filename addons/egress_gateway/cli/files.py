"""Reads what `-f` names, and turns what `config` raises into lines for the operator."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .terminal import Failure, warning

if TYPE_CHECKING:
    from egress_gateway.config.document import Document
    from egress_gateway.config.problem import Problem

STDIN = "<stdin>"


def parse_files(files: Sequence[str]) -> tuple[list[Document], list[Problem]]:
    """The sound objects in `files` and all that is wrong; a `Failure` where a file cannot be read."""
    from egress_gateway.config.load import parse_documents
    from egress_gateway.config.read import clashes

    parsed = [parse_documents(_read(file), STDIN if file == "-" else file) for file in files]
    documents = [document for one in parsed for document in one.documents]
    problems = [problem for one in parsed for problem in one.problems]
    found = clashes(document.rule for document in documents)
    return documents, [*problems, *(clash for clash in found if clash not in problems)]


def documents_in(files: Sequence[str]) -> list[Document]:
    """The objects in `files`; writes their warnings. A `Failure` with every error where there is one."""
    documents, problems = parse_files(files)
    _report(problems)
    if not documents:
        raise Failure(f"{', '.join(files)}: no object in there (write a document with kind: EgressRule)")
    return documents


def _read(file: str) -> bytes:
    from egress_gateway.config.limits import DEFAULT_LIMITS

    # One byte more than is allowed is enough for the parser to say that it is too much.
    enough = DEFAULT_LIMITS.max_file_bytes + 1
    try:
        if file == "-":
            return sys.stdin.buffer.read(enough)
        with open(file, "rb") as stream:
            return stream.read(enough)
    except IsADirectoryError:
        raise Failure(f"{file}: a directory (-f takes files: -f {file.rstrip('/')}/NAME.yaml)") from None
    except OSError as problem:
        raise Failure(f"{file}: {(problem.strerror or str(problem)).lower()} (check the name given to -f)") from None


@contextmanager
def operator_errors(undone: str = "") -> Iterator[None]:
    """What `config` and the file system complain of becomes a `Failure`.

    `undone` (e.g. `nothing was created`) is said after errors in rules that the user did not write just now.
    """
    from egress_gateway.config.problem import RuleErrors
    from egress_gateway.config.store import StoreError, WouldNotLoad

    try:
        yield
    except RuleErrors as problem:
        loads = "would not load" if isinstance(problem, WouldNotLoad) else "does not load"
        _report(problem.problems, f"{undone}: the rules directory {loads}" if undone else "")
    except StoreError as problem:
        raise Failure(*str(problem).splitlines()) from None
    except OSError as problem:
        place = f"{problem.filename}: " if problem.filename else ""
        raise Failure(f"{place}{(problem.strerror or str(problem)).lower()}") from None


def _report(problems: Iterable[Problem], conclusion: str = "") -> None:
    """Writes the warnings; the errors, if any, become a `Failure`, with `conclusion` as its last line."""
    errors = []
    for problem in problems:
        if problem.is_error:
            errors.append(str(problem))
        else:
            warning(str(problem))
    if errors:
        raise Failure(*errors, *filter(None, (conclusion,)))
