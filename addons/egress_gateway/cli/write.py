"""`create`, `replace` and `delete`: what changes the rules directory, all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .files import documents_in, operator_errors
from .manual import ManualPage
from .options import (
    KIND,
    dry_run_option,
    existing,
    files_option,
    kind_and_names,
    namespace_option,
    rules_option,
    verbose_option,
)
from .rehearsal import rehearsed
from .terminal import Failure, answer, note, warning

if TYPE_CHECKING:
    from egress_gateway.config.document import Document
    from egress_gateway.config.store import Change, Store, Written

_EXIT_STATUS = """
    0   everything was done
    1   nothing was changed; standard error says why
    2   the command line was not understood
"""


@click.command(
    cls=ManualPage,
    examples="""
        egressctl create -f googleapis.yaml
        egressctl create -f a.yaml -f b.yaml --dry-run
        egressctl create -f - <<EOF
        kind: EgressRule
        metadata: {name: googleapis}
        spec:
          destination: {service: "*.googleapis.com"}
          ports:
          - {port: 443, protocol: https}
        EOF
    """,
    exit_status=_EXIT_STATUS,
)
@files_option(required=True)
@namespace_option("The namespace that every object must be in.")
@dry_run_option
@verbose_option
@rules_option
def create(files: Sequence[str], namespace: str | None, dry_run: bool, verbose: bool, directory: Path) -> None:
    """Add new rules.

    Every object in the files is written to the rules directory, and the gateway
    has it in force within a second. Nothing is written when an object is wrong or
    one of that name exists. Warnings, and which of two conflicting rules has no
    effect, are written to standard error.
    """
    documents = _documents(files, namespace)
    _change(
        directory,
        dry_run,
        verbose,
        act=lambda store: store.create(documents),
        undone="nothing was created",
        line=lambda change: f"Created config {change.ref} at revision {change.revision}",
    )


@click.command(
    cls=ManualPage,
    examples="""
        egressctl replace -f googleapis.yaml
        egressctl get egressrule googleapis -o yaml | sed s/80/443/ | egressctl replace -f -
    """,
    exit_status=_EXIT_STATUS,
)
@files_option(required=True)
@namespace_option("The namespace that every object must be in.")
@dry_run_option
@verbose_option
@rules_option
def replace(files: Sequence[str], namespace: str | None, dry_run: bool, verbose: bool, directory: Path) -> None:
    """Replace rules that exist.

    Every object in the files takes the place of the one of the same name and
    namespace. Nothing is written when an object is wrong or one of them does not
    exist.
    """
    documents = _documents(files, namespace)
    _change(
        directory,
        dry_run,
        verbose,
        act=lambda store: store.replace(documents),
        undone="nothing was replaced",
        line=lambda change: f"Updated config {change.ref} to revision {change.revision}",
    )


@click.command(
    cls=ManualPage,
    examples="""
        egressctl delete egressrule googleapis -n default
        egressctl delete egressrule googleapis github
        egressctl delete -f googleapis.yaml
    """,
    exit_status=_EXIT_STATUS,
)
@kind_and_names
@files_option(required=False)
@namespace_option("The namespace of the rules named. [default: default]")
@dry_run_option
@verbose_option
@rules_option
def delete(
    kind: str | None,
    names: Sequence[str],
    files: Sequence[str],
    namespace: str | None,
    dry_run: bool,
    verbose: bool,
    directory: Path,
) -> None:
    """Delete rules by name, or those that files hold.

    Nothing is deleted when one of them does not exist. Of an object in a file
    only its name and namespace count, but the file must be without errors.
    """
    if bool(files) == bool(kind):
        raise click.UsageError("say what to delete: either `egressrule NAME…` or `-f FILE`")
    if kind and not names:
        raise click.UsageError(f"say which one: `delete {kind} NAME…`")
    if files:
        keys = [document.key for document in _documents(files, namespace)]
    else:
        keys = [(KIND, namespace or "default", name) for name in dict.fromkeys(names)]
    _change(
        directory,
        dry_run,
        verbose,
        act=lambda store: store.delete(keys),
        undone="nothing was deleted",
        line=lambda change: f"Deleted config: {change.ref if files else f'{kind} {change.key[2]}'}",
    )


def _documents(files: Sequence[str], namespace: str | None) -> list[Document]:
    documents = documents_in(files)
    elsewhere = [document for document in documents if namespace not in (None, document.namespace)]
    if elsewhere:
        raise Failure(
            *(
                f"{document.source}: {document.ref} is not in namespace {namespace} "
                f"(write metadata.namespace: {namespace}, or leave out -n)"
                for document in elsewhere
            )
        )
    return documents


def _change(
    directory: Path,
    dry_run: bool,
    verbose: bool,
    *,
    act: Callable[[Store], Written],
    undone: str,
    line: Callable[[Change], str],
) -> None:
    from egress_gateway.config.store import Store

    with operator_errors(undone):
        written = rehearsed(existing(directory), act) if dry_run else act(Store(existing(directory)))
    for problem in written.warnings:
        warning(str(problem))
    for change in written.changes:
        answer(line(change) + (" (dry run)" if dry_run else ""))
    if verbose:
        for file, removed in {change.file: change.removed for change in written.changes}.items():
            note(f"{_DONE_TO_A_FILE[dry_run, removed]} {file}")


_DONE_TO_A_FILE = {
    (False, False): "wrote",
    (False, True): "deleted",
    (True, False): "would write",
    (True, True): "would delete",
}
"""What happened to a file, by whether it was a rehearsal and whether the file goes."""
