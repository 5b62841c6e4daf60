"""What several commands take: the rules directory, files, a namespace, a kind, a form of output."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .terminal import Failure

type Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

DEFAULT_RULES = "./rules"


class Argument(click.Argument):
    """A positional argument with a text `about` it for the manual page."""

    def __init__(self, *declarations: Any, about: str, **more: Any) -> None:
        super().__init__(*declarations, **more)
        self.about = about

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return self.make_metavar(ctx), self.about


class Kind(click.ParamType[str]):
    """The kind of an object, as istioctl spells it and in any case; the spelling the user chose is kept."""

    name = "kind"
    spellings = ("egressrule", "egressrules", "egress-rule")

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value.lower() not in self.spellings:
            *others, last = self.spellings
            raise click.UsageError(f"unknown kind {value!r} (there is one, written {', '.join(others)} or {last})", ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem("egressrule")] if "egressrule".startswith(incomplete.lower()) else []


KIND = "EgressRule"
"""What every spelling in `Kind` means."""


class PortNumber(click.ParamType[int]):
    """A TCP port."""

    name = "port"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from egress_gateway.policy.hostname import MalformedHost, parse_port

        try:
            return parse_port(str(value))
        except MalformedHost as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def rules_option[F: Callable[..., Any]](function: F) -> F:
    """Adds `--rules`; the function receives `directory`, a `Path` that may not exist."""
    return click.option(
        "--rules",
        "directory",
        metavar="DIR",
        callback=_directory,
        type=click.Path(),
        help="The rules directory. [default: $EGRESS_RULES, which scripts/egressctl sets to its project's rules/; "
        f"without it {DEFAULT_RULES}]",
    )(function)


def _directory(ctx: click.Context, _param: click.Parameter, value: str | None) -> Path:
    # The option may also stand in front of the command, as istioctl's global flags could.
    text = value or ctx.find_root().params.get("directory") or os.environ.get("EGRESS_RULES") or DEFAULT_RULES
    return Path(text)


def existing(directory: Path) -> Path:
    """`directory`; a `Failure` that says what to do where there is none."""
    if directory.is_dir():
        return directory
    if directory.exists():
        raise Failure(f"{directory}: not a directory (--rules and EGRESS_RULES name the directory of rule files)")
    raise Failure(
        f"{directory}: no such directory (make it with `mkdir -p {directory}`, "
        "or name another one with --rules DIR or EGRESS_RULES)"
    )


def files_option(*, required: bool) -> Decorator:
    """Adds `-f`, as often as wanted; the function receives `files`."""
    return click.option(
        "-f",
        "--file",
        "files",
        metavar="FILE",
        multiple=True,
        required=required,
        type=click.Path(),
        help="A file of rules, YAML or JSON; - is standard input. May be given several times.",
    )


def namespace_option(help_text: str) -> Decorator:
    """Adds `-n`; the function receives `namespace`, None where it was not given."""
    return click.option("-n", "--namespace", metavar="NAMESPACE", help=help_text)


def dry_run_option[F: Callable[..., Any]](function: F) -> F:
    """Adds `--dry-run`."""
    return click.option("--dry-run", is_flag=True, help="Do everything but the change itself.")(function)


def verbose_option[F: Callable[..., Any]](function: F) -> F:
    """Adds `-v`."""
    return click.option(
        "-v", "--verbose", is_flag=True, help="Say on standard error which files were written or deleted."
    )(function)


def kind_and_names[F: Callable[..., Any]](function: F) -> F:
    """Adds `[KIND] [NAME]...`; the function receives `kind`, None where it was not given, and `names`."""
    names = click.argument(
        "names",
        cls=Argument,
        metavar="[NAME]...",
        nargs=-1,
        shell_complete=complete_names,
        about="The names of rules (metadata.name).",
    )(function)
    kinds = f"What kind of object; the one kind is {KIND}, written {', '.join(Kind.spellings)}, in any case."
    return click.argument("kind", cls=Argument, type=Kind(), required=False, about=kinds)(names)


def output_option(*choices: str, default: str) -> Decorator:
    """Adds `-o`; the function receives `output`."""
    return click.option(
        "-o",
        "--output",
        metavar="FORMAT",
        type=click.Choice(choices, case_sensitive=False),
        default=default,
        help=f"The form of the answer: {', '.join(choices)}. [default: {default}]",
    )


def complete_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of rules that exist, for the shell; nothing where the directory cannot be read."""
    from egress_gateway.config.load import load_directory
    from egress_gateway.config.problem import RuleErrors

    try:
        documents = load_directory(_directory(ctx, _param, ctx.params.get("directory"))).documents
    except RuleErrors:
        return []
    wanted = ctx.params.get("namespace")
    names = {document.name for document in documents if wanted in (None, document.namespace)}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
