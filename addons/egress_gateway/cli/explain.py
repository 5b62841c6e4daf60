"""`explain`: what the gateway would do with a request, by which rule, and what would have to be different."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .files import operator_errors
from .manual import ManualPage
from .options import PortNumber, existing, output_option, rules_option
from .terminal import answer, warning

if TYPE_CHECKING:
    from egress_gateway.policy.hostname import Address

    from .questions import Question

PROTOCOLS = ("https", "http", "tcp", "http2", "grpc", "mongo")
SPEAKS = {"tls": "tls", "http": "http", "tcp": "other"}
"""Values of `--speaks`, and the policy's words for them."""
_USUAL_PROTOCOL = {443: "https", 80: "http"}


@click.command(
    cls=ManualPage,
    examples="""
        egressctl explain --host www.googleapis.com --port 443 --protocol https
        egressctl explain --host www.googleapis.com --port 443 --speaks tls --sni evil.example
        egressctl explain --host db.corp --port 5432 --protocol tcp --address 10.1.2.3
        egressctl explain --host github.com --port 443 -o json | jq -r '.answers[].smallest_rule'
    """,
    exit_status="""
        0   allowed, in every form that was asked about
        1   denied in one of them, or the rules could not be read
        2   the command line was not understood
    """,
)
@click.option("--host", required=True, metavar="HOST", help="The destination: a name or an address.")
@click.option("--port", required=True, type=PortNumber(), metavar="PORT", help="The port the client asks for.")
@click.option(
    "--protocol",
    metavar="PROTOCOL",
    type=click.Choice(PROTOCOLS, case_sensitive=False),
    help=f"What is wanted there: {', '.join(PROTOCOLS)}. [default: https for port 443, http for port 80]",
)
@click.option(
    "--speaks",
    metavar="FORM",
    type=click.Choice(tuple(SPEAKS), case_sensitive=False),
    help="What the application itself speaks: tls, http (plain HTTP), or tcp (anything else). "
    "[default: all that the protocol stands for; https is both http and tls]",
)
@click.option("--sni", metavar="NAME", help="The name in the TLS client hello; '' for none. [default: the host]")
@click.option(
    "--address",
    "addresses",
    metavar="ADDRESS",
    multiple=True,
    help="An address that the host has; judged as if a resolver had answered it. May be given several times.",
)
@click.option(
    "--dialled",
    metavar="ADDRESS",
    help="The address that the client itself dialled, where the gateway is transparent; compared with those of "
    "--address.",
)
@click.option("--from", "source", metavar="ADDRESS", help="Who asks. Accepted; no rule looks at it yet.")
@click.option("--method", metavar="METHOD", help="The HTTP method. Accepted; no rule looks at it yet.")
@click.option("--path", metavar="PATH", help="The HTTP path. Accepted; no rule looks at it yet.")
@output_option("text", "json", default="text")
@rules_option
def explain(
    host: str,
    port: int,
    protocol: str | None,
    speaks: str | None,
    sni: str | None,
    addresses: Sequence[str],
    dialled: str | None,
    source: str | None,
    method: str | None,
    path: str | None,
    output: str,
    directory: Path,
) -> int:
    """Say what the gateway would do, and why.

    Writes the verdict, its reason, the rule with file:line, and what would be done:
    TLS origination, passthrough, plain HTTP, or bytes. For a denial also the rule
    that came nearest, what it lacks, and the smallest rule that would allow the
    request, tried out and ready for `egressctl create -f -`.

    The answer is that of the rules directory. No name is looked up and nothing is
    connected to: which addresses the host has is for you to say, with --address.
    """
    from . import questions, report

    question = _question(host, port, protocol, speaks, sni, addresses, dialled)
    _say_what_is_ignored({"--from": source, "--method": method, "--path": path})
    from egress_gateway.config.load import load_directory

    with operator_errors():
        ruleset = load_directory(existing(directory)).ruleset
    findings = questions.answer_question(ruleset, question)
    answer(report.as_json(question, findings) if output == "json" else report.as_text(question, findings, sys.stdout))
    return 0 if all(finding.verdict.allowed for finding in findings) else 1


def _question(
    host: str,
    port: int,
    protocol: str | None,
    speaks: str | None,
    sni: str | None,
    addresses: Sequence[str],
    dialled: str | None,
) -> Question:
    from egress_gateway.policy.request import Spoken

    from .questions import FORMS, Question

    wanted = (protocol or _USUAL_PROTOCOL.get(port, "")).lower()
    if not wanted:
        raise click.UsageError(f"say which --protocol is wanted on port {port}: {', '.join(PROTOCOLS)}")
    forms = FORMS[wanted]
    if speaks is not None:
        form = Spoken(SPEAKS[speaks.lower()])
        if form not in forms and wanted != "tcp":
            raise click.UsageError(f"--speaks {speaks} is not a form of --protocol {wanted}")
        forms = (form,)
    if sni is not None and Spoken.TLS not in forms:
        raise click.UsageError("--sni is for an application that speaks TLS (--protocol https, or --speaks tls)")
    if dialled is not None and not addresses:
        raise click.UsageError("--dialled needs the host's own addresses to be compared with (--address)")
    went_to = None if dialled is None else _address(dialled, "--dialled")
    return Question(host, port, wanted, forms, sni, tuple(map(_address, addresses)), went_to)


def _address(text: str, option: str = "--address") -> Address:
    from egress_gateway.policy.hostname import MalformedHost, parse_host

    try:
        address = parse_host(text)
    except MalformedHost:
        address = None
    if address is None or isinstance(address, str):
        raise click.UsageError(f"{option} {text!r} is not an IP address")
    return address


def _say_what_is_ignored(options: dict[str, str | None]) -> None:
    for option, value in options.items():
        if value is not None:
            warning(f"{option} has no effect yet: no rule looks at it")
