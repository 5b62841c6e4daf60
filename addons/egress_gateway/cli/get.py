"""`get`: lists the rules that are there, and which of them have no effect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .files import operator_errors
from .manual import ManualPage
from .options import KIND, existing, kind_and_names, namespace_option, output_option, rules_option
from .table import table
from .terminal import answer

if TYPE_CHECKING:
    from egress_gateway.config.document import Document
    from egress_gateway.policy.rule import EgressRule, Port
    from egress_gateway.policy.ruleset import Conflict

_NOTHING = "No resources found."


@click.command(
    cls=ManualPage,
    examples="""
        egressctl get egressrules
        egressctl get egressrules -n shop -o wide
        egressctl get egressrule googleapis -o yaml
        egressctl get egressrules -o json | jq -r '.items[].metadata.name'
    """,
    exit_status="""
        0   the answer was written, also when it is that there is nothing
        1   the rules could not be read
        2   the command line was not understood
    """,
)
@kind_and_names
@namespace_option("Only this namespace. [default: all]")
@output_option("table", "wide", "yaml", "json", "name", default="table")
@rules_option
def get(kind: str | None, names: Sequence[str], namespace: str | None, output: str, directory: Path) -> None:
    """List rules.

    All of them, or those of the names given. The form of the answer is one of:

    table   NAME, KIND and NAMESPACE
    wide    also DESTINATION, PORTS, ACTION, SOURCE (file:line), and STATUS: `ok`,
            or where the rule has no effect and which rule comes first there
    yaml    the objects as their authors wrote them
    json    the object, if one name was given; else an object of kind List, whose
            items they are. `create` and `check` read both, and those of yaml
    name    one reference a line, e.g. egress-rule/default/googleapis
    """
    from egress_gateway.config.load import load_directory

    with operator_errors():
        loaded = load_directory(existing(directory))
    found = [
        document
        for document in sorted(loaded.documents, key=lambda document: (document.namespace, document.name))
        if document.kind == KIND and namespace in (None, document.namespace) and (not names or document.name in names)
    ]
    if output == "json":
        answer(json.dumps(_json(found, named=len(names) == 1), indent=2, ensure_ascii=False))
    elif not found:
        # What another program reads stays empty; people are told.
        click.echo(_NOTHING, err=output in ("yaml", "name"))
    elif output == "yaml":
        answer("---\n".join(document.text for document in found).removesuffix("\n"))
    elif output == "name":
        answer("\n".join(document.ref for document in found))
    elif output == "wide":
        answer(_wide(found, loaded.ruleset.conflicts))
    else:
        answer(table(("NAME", "KIND", "NAMESPACE"), map(_row, found)))


def _json(documents: Sequence[Document], *, named: bool) -> dict[str, Any]:
    """As kubectl has it: what programs read is of one shape, unless one object was asked for by its name."""
    items = [document.data() for document in documents]
    return items[0] if named and len(items) == 1 else {"apiVersion": "v1", "kind": "List", "items": items}


def _row(document: Document) -> tuple[str, str, str]:
    group, _, version = document.api_version.partition("/")
    return document.name, f"{document.kind}.{version}.{group}", document.namespace


def _wide(documents: Sequence[Document], conflicts: Sequence[Conflict]) -> str:
    head = ("NAME", "KIND", "NAMESPACE", "DESTINATION", "PORTS", "ACTION", "SOURCE", "STATUS")
    return table(head, (_wide_row(document, conflicts) for document in documents))


def _wide_row(document: Document, conflicts: Sequence[Conflict]) -> tuple[str, ...]:
    rule = document.rule
    return (
        *_row(document),
        ",".join(map(str, rule.destinations)),
        ",".join(map(_port, rule.ports)),
        _action(rule),
        str(document.source),
        "; ".join(map(no_effect, (one for one in conflicts if one.loser.key == rule.key))) or "ok",
    )


def _action(rule: EgressRule) -> str:
    """Where a transparent client's own address is not the last word, that is said as well."""
    from egress_gateway.policy.rule import AddressCheck

    return str(rule.action) if rule.check is AddressCheck.ENFORCE else f"{rule.action}({rule.check})"


def _port(port: Port) -> str:
    dialled = f"->{port.dialled}" if port.dialled != port.number else ""
    mode = f"({port.tls_mode})" if port.tls_mode else ""
    return f"{port.number}{dialled}/{port.protocol}{mode}"


def no_effect(conflict: Conflict) -> str:
    """Where the loser of `conflict` has no effect, and what comes first there."""
    return f"no effect on {conflict.destination}:{conflict.port}: {conflict.winner.key} comes first"
