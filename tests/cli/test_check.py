"""`check`: every problem with its place, for people, editors and CI."""

import json
from typing import Any

GOOD = """\
kind: EgressRule
metadata: {name: good}
spec:
  destination: {service: www.example.com}
  ports: [{port: 443, protocol: https}]
"""
BAD = """\
kind: EgressRule
metadata: {name: bad}
spec:
  destination: {service: "foo.*.com"}
  ports:
  - {port: 70000, protocol: https}
"""
BROAD = GOOD.replace("www.example.com", '"*example.com"').replace("good", "broad")


def test_a_good_file(ctl: Any) -> None:
    ctl.write("x.yaml", GOOD)
    done = ctl("check", "-f", "x.yaml")
    assert done == type(done)(0, "1 object, no problems.\n", "")


def test_every_problem_of_every_file_has_its_place(ctl: Any) -> None:
    ctl.write("a.yaml", BAD)
    done = ctl("check", "-f", "a.yaml", "-f", "-", stdin=BAD)
    assert (done.status, done.err) == (1, "")
    lines = done.out.splitlines()
    assert [line.split(" ")[0:2] for line in lines] == [
        ["a.yaml:4:26:", "spec.destination.service:"],
        ["a.yaml:6:12:", "spec.ports[0].port:"],
        ["<stdin>:4:26:", "spec.destination.service:"],
        ["<stdin>:6:12:", "spec.ports[0].port:"],
    ]
    assert "70000" in lines[1]
    assert "1..65535" in lines[1]


def test_a_warning_is_marked_and_is_no_failure(ctl: Any) -> None:
    ctl.write("x.yaml", BROAD)
    done = ctl("check", "-f", "x.yaml")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("x.yaml:4:26: warning: spec.destination.service: ")


def test_without_files_the_rules_directory_is_checked(ctl: Any) -> None:
    ctl.write("rules/a.yaml", GOOD)
    ctl.write("rules/b.yaml", BAD)
    ctl.write("rules/c.yaml", BROAD)
    done = ctl("check")
    assert done.status == 1
    assert [line.split(":")[0] for line in done.out.splitlines()] == [
        "rules/b.yaml",
        "rules/b.yaml",
        "rules/c.yaml",
    ]


def test_a_good_directory(ctl: Any) -> None:
    assert ctl("check").out == "0 objects, no problems.\n"
    ctl.write("rules/a.yaml", GOOD)
    ctl.write("rules/b.yaml", GOOD.replace("good", "better"))
    done = ctl("check")
    assert (done.status, done.out) == (0, "2 objects, no problems.\n")


def test_rules_without_effect_are_warnings_in_files_and_in_the_directory(ctl: Any) -> None:
    other = GOOD.replace("good", "other").replace("https", "tcp")
    for place in ("", "rules/"):
        ctl.write(f"{place}a.yaml", GOOD)
        ctl.write(f"{place}b.yaml", "\n\n# the loser\n" + other)
    in_files, in_directory = ctl("check", "-f", "b.yaml", "-f", "a.yaml"), ctl("check")
    assert in_files.status == in_directory.status == 0
    assert "rules/" + in_files.out == in_directory.out
    assert "default/other has no effect on www.example.com port 443: default/good " in in_files.out


def test_the_same_name_twice(ctl: Any) -> None:
    for place in ("", "rules/"):
        ctl.write(f"{place}a.yaml", GOOD)
        ctl.write(f"{place}b.yaml", GOOD)
    in_files, in_directory = ctl("check", "-f", "a.yaml", "-f", "b.yaml"), ctl("check")
    assert in_files.status == in_directory.status == 1
    assert in_files.out.startswith("b.yaml:")
    assert in_directory.out.startswith("rules/b.yaml:")


def test_the_same_name_twice_is_not_said_again_as_a_rule_that_loses_to_itself(ctl: Any) -> None:
    done = ctl("check", "-f", "-", stdin=GOOD + "---\n" + GOOD.replace("https", "tcp"))
    assert done.status == 1
    assert "egress-rule/default/good exists already" in done.out
    assert done.out.count("\n") == 1


def test_json(ctl: Any) -> None:
    ctl.write("x.yaml", BAD + "---\n" + BROAD)
    done = ctl("check", "-f", "x.yaml", "-o", "json")
    told = json.loads(done.out)
    assert (done.status, told["ok"]) == (1, False)
    assert [(one["line"], one["severity"], one["field"]) for one in told["problems"]] == [
        (4, "error", "spec.destination.service"),
        (6, "error", "spec.ports[0].port"),
        (11, "warning", "spec.destination.service"),
    ]
    assert set(told["problems"][0]) == {"file", "line", "column", "field", "message", "severity"}
    ctl.write("rules/a.yaml", GOOD)
    assert json.loads(ctl("check", "-o", "json").out) == {"ok": True, "problems": []}


def test_nothing_to_check(ctl: Any) -> None:
    ctl.rules.rmdir()
    done = ctl("check")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("egressctl: rules: no such directory (")
