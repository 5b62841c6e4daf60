"""Puts the commands together, and turns their ends into exit statuses and one-line errors."""

from __future__ import annotations

import click

from egress_gateway import __version__

from . import about, check, explain, get, write
from .manual import ManualGroup
from .terminal import Failure, error

INTERRUPTED = 130

_SYNONYMS = {
    "add": ("create",),
    "apply": ("create", "replace"),
    "set": ("create", "replace"),
    "edit": ("replace",),
    "update": ("replace",),
    "describe": ("get",),
    "list": ("get",),
    "ls": ("get",),
    "show": ("get",),
    "del": ("delete",),
    "remove": ("delete",),
    "rm": ("delete",),
    "lint": ("check",),
    "validate": ("check",),
    "verify": ("check",),
    "test": ("check", "explain"),
    "why": ("explain",),
}


@click.group(
    cls=ManualGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples="""
        egressctl create -f googleapis.yaml
        egressctl get egressrules -o wide
        egressctl explain --host www.googleapis.com --port 443 --protocol https
        egressctl delete egressrule googleapis

        eval "$(_EGRESSCTL_COMPLETE=bash_source egressctl)"     completion in this shell (also zsh, fish)
    """,
    exit_status="""
        0   yes: done, found, allowed, no errors
        1   no: an error, or denied; nothing was changed
        2   the command line was not understood
    """,
    synonyms=_SYNONYMS,
)
@click.option(
    "--rules",
    "directory",
    metavar="DIR",
    type=click.Path(),
    help="The rules directory, for the command that follows.",
)
@click.version_option(__version__, "--version", message="%(prog)s %(version)s", help="Print the version.")
def egressctl(directory: str | None) -> None:
    """Read, write, check and explain egress rules.

    Rules are files in a directory: that of --rules, else of the environment variable
    EGRESS_RULES, else ./rules. scripts/egressctl sets EGRESS_RULES, where it is not
    set, to the rules/ of its project. The gateway watches the directory: what is
    written there is in force within a second.

    Every command has a manual page: `egressctl help COMMAND`.
    """


for _command in (
    write.create,
    write.replace,
    get.get,
    write.delete,
    check.check,
    explain.explain,
    about.schema,
    about.version,
    about.help_page,
):
    egressctl.add_command(_command)


def main() -> int:
    """Runs the command line in `sys.argv` and returns the exit status."""
    try:
        status = egressctl.main(prog_name="egressctl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as help_page:
        help_page.show()
        return 2
    except click.UsageError as problem:
        command = problem.ctx.command_path if problem.ctx else "egressctl"
        error(f"{problem.format_message().rstrip('.')} (see `{command} --help`)")
        return 2
    except Failure as failure:
        for line in failure.lines:
            error(line)
        return 1
    except click.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0
