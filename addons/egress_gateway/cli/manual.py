"""Help that reads like a manual page: NAME, SYNOPSIS, DESCRIPTION, OPTIONS, EXAMPLES, EXIT STATUS.

The first line of a command's docstring is its NAME line, the rest its DESCRIPTION.
"""

from __future__ import annotations

import inspect
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
        pieces = " ".join(self.collect_usage_pieces(ctx))
        _section(formatter, "SYNOPSIS", f"{ctx.command_path} {pieces}")
        _section(formatter, "DESCRIPTION", description)
        self.format_options(ctx, formatter)
        _section(formatter, "EXAMPLES", self.examples)
        _section(formatter, "EXIT STATUS", self.exit_status)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [row for param in self.get_params(ctx) if (row := param.get_help_record(ctx))]
        _table(formatter, "OPTIONS", rows)

    def _docstring(self) -> tuple[str, str]:
        summary, _, description = inspect.cleandoc(self.help or "").partition("\n\n")
        return " ".join(summary.split()).removesuffix("."), description


class ManualGroup(ManualPage, click.Group):
    """A group whose `--help` is a manual page, with a COMMANDS section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        _table(formatter, "COMMANDS", rows)
        super().format_options(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


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
