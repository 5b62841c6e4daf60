"""`create`, `replace` and `delete`: the exact texts of istioctl 0.7, and all or nothing."""

from typing import Any

import pytest

GOOGLEAPIS = """\
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: googleapis, namespace: default}
spec:
  destination: {service: "*.googleapis.com"}
  ports:
  - {port: 443, protocol: https}
"""


def rule(name: str, service: str = "example.com", port: str = "{port: 443, protocol: https}") -> str:
    """A rule in one line, on line 1 of its document."""
    return (
        f"{{kind: EgressRule, metadata: {{name: {name}}}, "
        f'spec: {{destination: {{service: "{service}"}}, ports: [{port}]}}}}\n'
    )


def test_create_from_a_file(ctl: Any) -> None:
    ctl.write("x.yaml", GOOGLEAPIS)
    done = ctl("create", "-f", "x.yaml")
    assert done == type(done)(0, "Created config egress-rule/default/googleapis at revision 1\n", "")
    assert ctl("get", "egressrule", "googleapis", "-o", "yaml").out == GOOGLEAPIS


def test_create_from_standard_input(ctl: Any) -> None:
    done = ctl("create", "-f", "-", stdin=GOOGLEAPIS)
    assert done.out == "Created config egress-rule/default/googleapis at revision 1\n"


def test_create_writes_a_line_for_each_object_in_the_order_of_the_files(ctl: Any) -> None:
    ctl.write("b.yaml", rule("b") + "---\n" + rule("a"))
    ctl.write("c.yaml", rule("c"))
    done = ctl("create", "-f", "b.yaml", "-f", "c.yaml")
    assert done.out.splitlines() == [
        "Created config egress-rule/default/b at revision 1",
        "Created config egress-rule/default/a at revision 2",
        "Created config egress-rule/default/c at revision 3",
    ]


def test_create_into_another_directory(ctl: Any) -> None:
    (ctl.folder / "elsewhere").mkdir()
    assert ctl("create", "-f", "-", "--rules", "elsewhere", stdin=rule("a")).status == 0
    assert ctl("--rules", "elsewhere", "get", "-o", "name").out == "egress-rule/default/a\n"
    assert ctl("get", "-o", "name", EGRESS_RULES="elsewhere").out == "egress-rule/default/a\n"
    assert ctl("get").out == "No resources found.\n"


def test_what_exists_is_not_created_again(ctl: Any) -> None:
    ctl("create", "-f", "-", stdin=GOOGLEAPIS)
    before = ctl.snapshot()
    done = ctl("create", "-f", "-", stdin=rule("new") + "---\n" + GOOGLEAPIS)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("egressctl: ")
    assert "egress-rule/default/googleapis" in done.err
    assert "exists" in done.err
    assert done.err.count("\n") == 1
    assert ctl.snapshot() == before


def test_one_wrong_object_and_nothing_is_created(ctl: Any) -> None:
    ctl.write("x.yaml", rule("good") + "---\n" + rule("bad", port="{port: 70000, protocol: http}"))
    done = ctl("create", "-f", "x.yaml")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("egressctl: x.yaml:3:")
    assert "spec.ports[0].port: " in done.err
    assert done.err.count("\n") == 1
    assert ctl.snapshot() == {}


def test_all_errors_of_all_files_are_reported(ctl: Any) -> None:
    ctl.write("a.yaml", rule("a", service="foo.*.com"))
    ctl.write("b.yaml", rule("b", port="{port: 80, protocol: udp}"))
    done = ctl("create", "-f", "a.yaml", "-f", "b.yaml")
    assert [line.split(":")[:2] for line in done.err.splitlines()] == [
        ["egressctl", " a.yaml"],
        ["egressctl", " b.yaml"],
    ]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("arguments", "undone"),
    [
        (("create", "-f", "-"), "created"),
        (("replace", "-f", "-"), "replaced"),
        (("delete", "-f", "-"), "deleted"),
        (("delete", "egressrule", "a"), "deleted"),
    ],
)
def test_errors_of_other_files_say_why_they_matter(
    ctl: Any, arguments: tuple[str, ...], undone: str, dry_run: tuple[str, ...]
) -> None:
    ctl.write("rules/theirs.yaml", rule("theirs", port="{port: 70000, protocol: http}"))
    done = ctl(*arguments, *dry_run, stdin=rule("a"))
    assert (done.status, done.out) == (1, "")
    first, last = done.err.splitlines()
    assert first.startswith("egressctl: rules/theirs.yaml:1:")
    assert last == f"egressctl: nothing was {undone}: the rules directory does not load"
    assert [name for name in ctl.snapshot() if not name.startswith(".")] == ["theirs.yaml"]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_change_that_would_not_load_is_not_blamed_on_what_is_there(ctl: Any, dry_run: tuple[str, ...]) -> None:
    ctl.write("rules/a.yaml", rule("a").ljust(1 << 20, "#"))
    done = ctl("replace", "-f", "-", *dry_run, stdin=rule("a", service="a-longer-name.example.com"))
    assert done.status == 1
    first, last = done.err.splitlines()
    assert first.startswith("egressctl: rules/a.yaml: the file has ")
    assert last == "egressctl: nothing was replaced: the rules directory would not load"


def test_verbose_names_the_files_on_standard_error(ctl: Any) -> None:
    two = rule("a") + "---\n" + rule("b")
    done = ctl("create", "-v", "-f", "-", stdin=two)
    assert done.out.count("\n") == 2
    assert done.err == "egressctl: wrote rules/a.yaml\negressctl: wrote rules/b.yaml\n"
    assert ctl("replace", "--verbose", "-f", "-", stdin=rule("a")).err == "egressctl: wrote rules/a.yaml\n"
    assert ctl("delete", "-v", "egressrule", "b").err == "egressctl: deleted rules/b.yaml\n"
    ctl.write("rules/both.yaml", rule("c") + "---\n" + rule("d") + "---\n" + rule("e"))
    assert ctl("delete", "-v", "egressrule", "c", "d").err == "egressctl: wrote rules/both.yaml\n"


def test_verbose_rehearses_with_the_real_names(ctl: Any) -> None:
    assert ctl("create", "-v", "-f", "-", "--dry-run", stdin=rule("a")).err == "egressctl: would write rules/a.yaml\n"
    ctl.write("rules/b.yaml", rule("b"))
    assert ctl("delete", "-v", "egressrule", "b", "--dry-run").err == "egressctl: would delete rules/b.yaml\n"


def test_warnings_go_to_standard_error_and_stop_nothing(ctl: Any) -> None:
    done = ctl("create", "-f", "-", stdin=rule("broad", service="*example.com"))
    assert (done.status, done.out) == (0, "Created config egress-rule/default/broad at revision 1\n")
    assert done.err.startswith("egressctl: warning: <stdin>:1:")


def test_a_conflict_names_the_loser_and_the_winner(ctl: Any) -> None:
    ctl("create", "-f", "-", stdin=rule("a"))
    done = ctl("create", "-f", "-", stdin=rule("b", port="{port: 443, protocol: tcp}"))
    assert (done.status, done.out) == (0, "Created config egress-rule/default/b at revision 2\n")
    assert done.err.startswith("egressctl: warning: ")
    assert "default/b has no effect on example.com port 443: default/a " in done.err


@pytest.mark.parametrize("command", ["create", "replace", "delete"])
def test_a_namespace_that_is_not_the_objects_own_is_refused(ctl: Any, command: str) -> None:
    ctl("create", "-f", "-", stdin=rule("a"))
    before = ctl.snapshot()
    done = ctl(command, "-n", "shop", "-f", "-", stdin=rule("a"))
    assert done.status == 1
    assert done.err == (
        "egressctl: <stdin>:1: egress-rule/default/a is not in namespace shop "
        "(write metadata.namespace: shop, or leave out -n)\n"
    )
    assert ctl.snapshot() == before


def test_replace(ctl: Any) -> None:
    ctl("create", "-f", "-", stdin=GOOGLEAPIS)
    changed = GOOGLEAPIS.replace("443", "8443")
    done = ctl("replace", "-f", "-", stdin=changed)
    assert (done.status, done.err) == (0, "")
    assert done.out == "Updated config egress-rule/default/googleapis to revision 2\n"
    assert ctl("get", "egressrule", "googleapis", "-o", "yaml").out == changed


@pytest.mark.parametrize("command", ["replace", "delete"])
def test_what_does_not_exist_cannot_be_changed(ctl: Any, command: str) -> None:
    ctl("create", "-f", "-", stdin=rule("here"))
    before = ctl.snapshot()
    done = ctl(command, "-f", "-", stdin=rule("here", service="other.com") + "---\n" + rule("gone"))
    assert (done.status, done.out) == (1, "")
    assert "egress-rule/default/gone" in done.err
    assert done.err.count("\n") == 1
    assert ctl.snapshot() == before


def test_delete_by_name(ctl: Any) -> None:
    ctl("create", "-f", "-", stdin=GOOGLEAPIS)
    done = ctl("delete", "egressrule", "googleapis", "-n", "default")
    assert done == type(done)(0, "Deleted config: egressrule googleapis\n", "")
    assert ctl("get", "egressrules").out == "No resources found.\n"


def test_delete_several_by_name(ctl: Any) -> None:
    ctl("create", "-f", "-", stdin="---\n".join(map(rule, "abc")))
    done = ctl("delete", "Egress-Rule", "c", "a", "c")
    assert done.out == "Deleted config: Egress-Rule c\nDeleted config: Egress-Rule a\n"
    assert ctl("get", "-o", "name").out == "egress-rule/default/b\n"


def test_delete_by_file(ctl: Any) -> None:
    ctl.write("x.yaml", GOOGLEAPIS)
    ctl("create", "-f", "x.yaml")
    done = ctl("delete", "-f", "x.yaml")
    assert done == type(done)(0, "Deleted config: egress-rule/default/googleapis\n", "")
    assert ctl("get").out == "No resources found.\n"


def test_delete_looks_in_the_namespace_given_only(ctl: Any) -> None:
    ctl("create", "-f", "-", stdin=GOOGLEAPIS)
    done = ctl("delete", "egressrule", "googleapis", "-n", "shop")
    assert (done.status, done.out) == (1, "")
    assert "egress-rule/shop/googleapis" in done.err


def test_what_was_put_there_by_hand_is_replaced_and_deleted_the_same(ctl: Any) -> None:
    ctl.write("rules/mine.yaml", rule("a") + "---\n# second\n" + rule("b"))
    assert ctl("replace", "-f", "-", stdin=rule("a", service="other.com")).status == 0
    assert ctl("delete", "egressrule", "a").status == 0
    assert ctl("get", "-o", "yaml").out == "# second\n" + rule("b")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("create", "-f", "-"), "Created config egress-rule/default/b at revision 2 (dry run)\n"),
        (("replace", "-f", "a.yaml"), "Updated config egress-rule/default/a to revision 2 (dry run)\n"),
        (("delete", "-f", "a.yaml"), "Deleted config: egress-rule/default/a (dry run)\n"),
        (("delete", "egressrule", "a"), "Deleted config: egressrule a (dry run)\n"),
    ],
)
def test_a_dry_run_says_the_same_and_changes_nothing(ctl: Any, arguments: tuple[str, ...], line: str) -> None:
    ctl.write("a.yaml", rule("a"))
    ctl("create", "-f", "a.yaml")
    before = ctl.snapshot()
    done = ctl(*arguments, "--dry-run", stdin=rule("b"))
    assert done == type(done)(0, line, "")
    assert ctl.snapshot() == before


def test_a_dry_run_warns_and_fails_with_the_words_of_the_act(ctl: Any) -> None:
    ctl("create", "-f", "-", stdin=rule("a"))
    conflicting = rule("b", port="{port: 443, protocol: tcp}")
    rehearsed = [ctl("create", "-f", "-", "--dry-run", stdin=text) for text in (rule("a"), conflicting)]
    acted = [ctl("create", "-f", "-", stdin=text) for text in (rule("a"), conflicting)]
    assert [done.err for done in rehearsed] == [done.err for done in acted]
    assert [done.status for done in rehearsed] == [done.status for done in acted] == [1, 0]


def test_a_dry_run_does_not_follow_links_either(ctl: Any) -> None:
    ctl.write("elsewhere.yaml", rule("a"))
    (ctl.rules / "a.yaml").symlink_to("../elsewhere.yaml")
    rehearsed, acted = ctl("delete", "egressrule", "a", "--dry-run"), ctl("delete", "egressrule", "a")
    assert rehearsed == acted
    assert acted.err.startswith("egressctl: rules/a.yaml is a symbolic link (")


def test_of_several_that_create_the_same_at_once_exactly_one_wins(ctl: Any) -> None:
    done = ctl.at_once(*[("create", "-f", "-")] * 4, stdin=GOOGLEAPIS)
    assert sorted(one.status for one in done) == [0, 1, 1, 1]
    assert {one.out for one in done} == {"", "Created config egress-rule/default/googleapis at revision 1\n"}
    assert all("exists" in one.err for one in done if one.status == 1)
    assert ctl("get", "-o", "yaml").out == GOOGLEAPIS


def test_several_that_create_different_rules_at_once_all_win_with_a_revision_each(ctl: Any) -> None:
    for name in "abc":
        ctl.write(f"{name}.yaml", rule(name))
    done = ctl.at_once(*(("create", "-f", f"{name}.yaml") for name in "abc"))
    assert [one.status for one in done] == [0, 0, 0]
    assert sorted(one.out.rsplit(maxsplit=1)[1] for one in done) == ["1", "2", "3"]
    assert ctl("get", "-o", "name").out.splitlines() == [f"egress-rule/default/{name}" for name in "abc"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("create",), "Missing option '-f' / '--file' (see `egressctl create --help`)"),
        (
            ("delete",),
            "say what to delete: either `egressrule NAME…` or `-f FILE` (see `egressctl delete --help`)",
        ),
        (
            ("delete", "egressrule"),
            "say which one: `delete egressrule NAME…` (see `egressctl delete --help`)",
        ),
        (
            ("delete", "egressrule", "a", "-f", "a.yaml"),
            "say what to delete: either `egressrule NAME…` or `-f FILE` (see `egressctl delete --help`)",
        ),
    ],
)
def test_a_command_line_that_is_not_understood(ctl: Any, arguments: tuple[str, ...], error: str) -> None:
    assert ctl(*arguments) == type(ctl("version"))(2, "", f"egressctl: {error}\n")


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("no.yaml", "no.yaml: no such file or directory (check the name given to -f)"),
        ("rules", "rules: a directory (-f takes files: -f rules/NAME.yaml)"),
        ("empty.yaml", "empty.yaml: no object in there (write a document with kind: EgressRule)"),
    ],
)
def test_a_file_that_cannot_be_used(ctl: Any, file: str, error: str) -> None:
    ctl.write("empty.yaml", "# nothing yet\n")
    done = ctl("create", "-f", file)
    assert (done.status, done.out, done.err) == (1, "", f"egressctl: {error}\n")


def test_a_rules_directory_that_does_not_exist_is_not_made(ctl: Any) -> None:
    ctl.rules.rmdir()
    done = ctl("create", "-f", "-", stdin=GOOGLEAPIS)
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "egressctl: rules: no such directory "
        "(make it with `mkdir -p rules`, or name another one with --rules DIR or EGRESS_RULES)\n"
    )
    assert not ctl.rules.exists()


def test_a_file_that_is_too_large_is_refused_and_not_cut_off(ctl: Any) -> None:
    text = rule("a")
    fits = text + "#" * ((1 << 20) - len(text))
    assert ctl("check", "-f", "-", stdin=fits).status == 0
    done = ctl("check", "-f", "-", stdin=fits + "\n" + rule("b"))
    assert done.status == 1
    assert "1048576" in done.out


def test_input_without_end_is_not_read_to_its_end(ctl: Any) -> None:
    done = ctl("create", "-f", "/dev/zero")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("egressctl: /dev/zero")
