"""`schema` and `version`."""

from __future__ import annotations

import json

import click

from egress_gateway import __version__

from .manual import ManualPage
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
