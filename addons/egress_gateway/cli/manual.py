"""Help that reads like a manual page: NAME, SYNOPSIS, DESCRIPTION, OPTIONS, EXAMPLES, EXIT STATUS.

The first line of a command's docstring is its NAME line, the rest its DESCRIPTION.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

_INDENT = 4


class ManualPage(click.Command):
    """A command whose `--help` is a manual page."""

    def __init__(self, *args: Any, examples: str = "", exit_status: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = inspect.cleandoc(examples)
        self.exit_status = inspect.cleandoc(exit_status)

    def get_short_help_str(self, limit: int = 45) -> str:
        return self._docstring()[0]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        summary, description = self._docstring()
        _section(formatter, "NAME", f"{ctx.command_path.replace(' ', '-')} - {summary}")
        pieces = " ".join((*_required_options(self, ctx), *self.collect_usage_pieces(ctx)))
        _section(formatter, "SYNOPSIS", f"{ctx.command_path} {pieces}")
        _section(formatter, "DESCRIPTION", description)
        self.format_options(ctx, formatter)
        _section(formatter, "EXAMPLES", self.examples)
        _section(formatter, "EXIT STATUS", self.exit_status)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [param for param in self.get_params(ctx) if isinstance(param, click.Argument)]
        options = [param for param in self.get_params(ctx) if not isinstance(param, click.Argument)]
        for title, params in (("ARGUMENTS", arguments), ("OPTIONS", options)):
            _table(formatter, title, [row for param in params if (row := param.get_help_record(ctx))])

    def _docstring(self) -> tuple[str, str]:
        summary, _, description = inspect.cleandoc(self.help or "").partition("\n\n")
        return " ".join(summary.split()).removesuffix("."), description


class ManualGroup(ManualPage, click.Group):
    """A group whose `--help` is a manual page, with a COMMANDS section.

    `synonyms` are words that other programs use for commands, and the commands that mean the same here.
    """

    def __init__(self, *args: Any, synonyms: Mapping[str, Sequence[str]] | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.synonyms = synonyms or {}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        meant = self.synonyms.get(args[0].lower(), ())
        if meant and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, meant))}?", ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        _table(formatter, "COMMANDS", rows)
        super().format_options(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _required_options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    """What click leaves to `[OPTIONS]` though nothing goes without it, e.g. `-f FILE`."""
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and param.required:
            yield f"{param.opts[0]} {param.make_metavar(ctx)}"


def _section(formatter: click.HelpFormatter, title: str, text: str) -> None:
    # Written as it stands: descriptions and examples are laid out by whoever wrote them.
    if text:
        if formatter.getvalue():
            formatter.write("\n")
        formatter.write(f"{title}\n")
        for line in text.splitlines():
            formatter.write(f"{' ' * _INDENT}{line}".rstrip() + "\n")


def _table(formatter: click.HelpFormatter, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        formatter.write(f"\n{title}\n")
        formatter.current_indent += _INDENT
        formatter.write_dl(rows)
        formatter.current_indent -= _INDENT
