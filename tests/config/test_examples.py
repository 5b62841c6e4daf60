"""The example rules that come with the gateway are right, in force or not."""

from pathlib import Path

import pytest

from egress_gateway.config.load import load_directory, parse_documents

RULES = Path(__file__).parents[2] / "rules"
FILES = sorted(RULES.rglob("*.yaml"))


def test_the_examples_are_there():
    assert {path.name for path in FILES} >= {
        "googleapis.yaml",
        "httpbin.yaml",
        "wikipedia-cidr.yaml",
        "books-v1.yaml",
        "deny.yaml",
        "database-tcp.yaml",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_has_a_header_comment_and_neither_errors_nor_warnings(path):
    assert path.read_text().startswith("# ")
    parsed = parse_documents(path.read_bytes(), str(path))
    assert parsed.problems == ()
    assert parsed.documents


def test_only_googleapis_is_in_force_by_default():
    assert [document.ref for document in load_directory(RULES).documents] == ["egress-rule/default/googleapis"]


def test_all_examples_load_together():
    assert load_directory(RULES / "examples").warnings == ()
