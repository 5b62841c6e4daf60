"""`get`: the table of istioctl 0.7, and what a rule that does nothing is told about itself."""

import json
from typing import Any

import pytest

GOOGLEAPIS = """\
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: googleapis}
spec:
  destination: {service: "*.googleapis.com"}
  ports:
  - {port: 443, protocol: https}
"""
SHOP = """\
# Where the shop gets its books.
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: books, namespace: shop}
spec:
  action: deny
  destination:
    services: [books.example, 198.51.100.0/24]
  ports:
  - {port: 80, protocol: tcp}
"""


@pytest.fixture
def two(ctl: Any) -> Any:
    ctl.write("rules/googleapis.yaml", GOOGLEAPIS)
    ctl.write("rules/shop.yaml", "\n" + SHOP)
    return ctl


def test_nothing_there(ctl: Any) -> None:
    done = ctl("get", "egressrules")
    assert (done.status, done.out, done.err) == (0, "No resources found.\n", "")


@pytest.mark.parametrize("kind", ["egressrules", "egressrule", "egress-rule", "EgressRule", "EGRESSRULES"])
def test_table(two: Any, kind: str) -> None:
    done = two("get", kind)
    assert done.out == (
        "NAME        KIND                                 NAMESPACE\n"
        "googleapis  EgressRule.v1alpha2.config.istio.io  default\n"
        "books       EgressRule.v1.egress.mitmproxy       shop\n"
    )
    assert (done.status, done.err) == (0, "")


def test_one_namespace(two: Any) -> None:
    assert two("get", "egressrules", "-n", "shop", "-o", "name").out == "egress-rule/shop/books\n"
    assert two("get", "egressrules", "-n", "nobody").out == "No resources found.\n"


def test_by_name(two: Any) -> None:
    assert two("get", "egressrule", "books", "-o", "name").out == "egress-rule/shop/books\n"
    assert two("get", "egressrule", "books", "-n", "default").out == "No resources found.\n"


def test_wide(two: Any) -> None:
    head, *rows = two("get", "egressrules", "-o", "wide").out.splitlines()
    assert " ".join(head.split()) == "NAME KIND NAMESPACE DESTINATION PORTS ACTION SOURCE STATUS"
    assert [row.split()[3:] for row in rows] == [
        ["*.googleapis.com", "443/https", "allow", "rules/googleapis.yaml:1", "ok"],
        ["books.example,198.51.100.0/24", "80/tcp", "deny", "rules/shop.yaml:2", "ok"],
    ]
    for column in ("NAMESPACE", "ACTION", "STATUS"):
        at = head.index(column)
        assert [row[at - 2 : at].isspace() and not row[at].isspace() for row in rows] == [True, True]


def test_wide_says_where_another_address_is_redialled(ctl: Any) -> None:
    ctl.write(
        "rules/cdn.yaml",
        """
        apiVersion: egress.mitmproxy/v1
        kind: EgressRule
        metadata: {name: cdn}
        spec:
          destination: {services: [cdn.example], check: redial}
          ports: [{port: 443, protocol: https}]
        """,
    )
    assert ctl("get", "-o", "wide").out.splitlines()[1].split()[5] == "allow(redial)"


def test_wide_says_where_a_rule_has_no_effect_and_why(ctl: Any) -> None:
    for name, protocol in (("a", "https"), ("b", "tcp")):
        ctl.write(
            f"rules/{name}.yaml",
            f"""
            kind: EgressRule
            metadata: {{name: {name}}}
            spec:
              destination: {{service: www.foo.com}}
              ports: [{{port: 443, protocol: {protocol}}}]
            """,
        )
    statuses = [line.split("  ")[-1] for line in ctl("get", "-o", "wide").out.splitlines()]
    assert statuses == ["STATUS", "ok", "no effect on www.foo.com:443: default/a comes first"]


def test_yaml_is_what_the_authors_wrote_and_can_be_created_elsewhere(two: Any) -> None:
    done = two("get", "egressrules", "-o", "yaml")
    assert done.out == f"{GOOGLEAPIS}---\n{SHOP}"
    (two.folder / "copy").mkdir()
    assert two("create", "--rules", "copy", "-f", "-", stdin=done.out).status == 0
    assert two("get", "--rules", "copy", "-o", "yaml").out == done.out


def test_json(two: Any) -> None:
    told = json.loads(two("get", "egressrules", "-o", "json").out)
    objects = told.pop("items")
    assert told == {"apiVersion": "v1", "kind": "List"}
    assert [one["metadata"]["name"] for one in objects] == ["googleapis", "books"]
    assert objects[0]["apiVersion"] == "config.istio.io/v1alpha2"
    assert objects[0]["spec"] == {
        "destination": {"service": "*.googleapis.com"},
        "ports": [{"port": 443, "protocol": "https"}],
    }


def test_json_of_one_object_that_was_named_is_that_object(two: Any) -> None:
    told = json.loads(two("get", "egressrule", "books", "-o", "json").out)
    assert (told["kind"], told["metadata"]["name"]) == ("EgressRule", "books")


def test_json_of_anything_else_is_a_list_so_that_its_shape_does_not_hang_on_what_is_there(two: Any) -> None:
    for arguments in ((), ("-n", "shop"), ("books", "googleapis"), ("nobody",)):
        assert json.loads(two("get", "egressrules", *arguments, "-o", "json").out)["kind"] == "List"
    two.write("rules/other.yaml", SHOP.replace("namespace: shop", "namespace: library"))
    assert len(json.loads(two("get", "egressrule", "books", "-o", "json").out)["items"]) == 2


@pytest.mark.parametrize("names", [(), ("books",)])
def test_json_can_be_checked_and_created_elsewhere(two: Any, names: tuple[str, ...]) -> None:
    done = two("get", "egressrules", *names, "-o", "json")
    assert two("check", "-f", "-", stdin=done.out).out.endswith("no problems.\n")
    (two.folder / "copy").mkdir()
    assert two("create", "--rules", "copy", "-f", "-", stdin=done.out).status == 0
    assert two("get", "egressrules", *names, "--rules", "copy", "-o", "json").out == done.out


@pytest.mark.parametrize("output", ["json", "yaml", "name"])
def test_a_program_that_reads_nothing_is_not_told_it_in_words(ctl: Any, output: str) -> None:
    done = ctl("get", "egressrules", "-o", output)
    assert done.status == 0
    assert done.out == ('{\n  "apiVersion": "v1",\n  "kind": "List",\n  "items": []\n}\n' if output == "json" else "")


def test_rules_that_do_not_load(two: Any) -> None:
    two.write("rules/wrong.yaml", GOOGLEAPIS.replace("443", "70000").replace("googleapis}", "other}"))
    done = two("get", "egressrules")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("egressctl: rules/wrong.yaml:7:")


def test_an_unknown_kind(ctl: Any) -> None:
    done = ctl("get", "pods")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "egressctl: unknown kind 'pods' (there is one, written egressrule, egressrules or egress-rule) "
        "(see `egressctl get --help`)\n"
    )
