"""`schema`, `version` and `help`."""

from __future__ import annotations

import json

import click

from egress_gateway import __version__

from .manual import ManualPage
from .options import Argument
from .terminal import answer


@click.command(
    cls=ManualPage,
    examples="""
        egressctl schema > egress-rules.schema.json

        # In a rule file, for editors with the YAML language server:
        # yaml-language-server: $schema=egress-rules.schema.json
    """,
)
def schema() -> None:
    """Print the JSON Schema of rule files, for editors."""
    from egress_gateway.config.schema import json_schema

    answer(json.dumps(json_schema(), indent=2))


@click.command(cls=ManualPage, examples="egressctl version")
def version() -> None:
    """Print the version."""
    answer(f"egressctl {__version__}")


@click.command(
    "help",
    cls=ManualPage,
    examples="""
        egressctl help
        egressctl help create
    """,
)
@click.argument("command", cls=Argument, required=False, about="The command; without one the page of egressctl itself.")
@click.pass_context
def help_page(ctx: click.Context, command: str | None) -> None:
    """Show the manual page of a command."""
    page = ctx.find_root()
    if command is not None and isinstance(page.command, click.Group):
        name, found, _ = page.command.resolve_command(page, [command])
        if found is not None:
            page = click.Context(found, info_name=name, parent=page)
    answer(page.get_help())
