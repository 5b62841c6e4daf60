"""The documents speak of what there is: every reason, every option, every metric, and no link goes nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from egress_gateway.config.load import parse_documents
from egress_gateway.hooks.options import OPTIONS
from egress_gateway.observe.arena import Arena
from egress_gateway.observe.families import Families, SupervisorFamilies
from egress_gateway.observe.merged import Merged
from egress_gateway.policy.reason import ANSWERS, Reason

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained_with_its_status_and_flag(reason: Reason) -> None:
    text = (ROOT / "docs" / "reasons.md").read_text()
    row = re.search(rf'^\| <a id="{reason.value}"></a>`{reason.value}` \|([^|]*)\|([^|]*)\|', text, re.MULTILINE)
    assert row, f"docs/reasons.md does not explain {reason.value}"
    answer = ANSWERS[reason]
    assert row[1].strip() == ("" if reason is Reason.ALLOWED else str(answer.status))
    assert row[2].strip() == answer.flag


def test_every_option_is_listed_with_its_default() -> None:
    text = (ROOT / "docs" / "options.md").read_text()
    for option in OPTIONS:
        shown = "(empty)" if option.default == "" else option.default
        assert f"| `{option.name}` | `{shown}` |" in text, option.name


def test_every_metric_is_listed() -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text()
    arena = Arena.create()
    Families(arena)
    SupervisorFamilies(arena)
    for name in re.findall("^# HELP ([a-z_]+) ", Merged([arena]).text(), re.MULTILINE):
        assert f"`{name}`" in text, name


def _rules_in(page: Path) -> list[str]:
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for block in blocks if "kind: EgressRule" in block]


RULES = [(page, number, text) for page in PAGES for number, text in enumerate(_rules_in(page))]


@pytest.mark.parametrize(("page", "number", "text"), RULES, ids=[f"{page.name} {number}" for page, number, _ in RULES])
def test_every_rule_shown_is_one(page: Path, number: int, text: str) -> None:
    parsed = parse_documents(text, page.name)
    assert parsed.rules
    assert [str(problem) for problem in parsed.problems] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
