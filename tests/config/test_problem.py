"""How problems read."""

from egress_gateway.config.problem import Problem, Problems, RuleErrors, Severity, shown


def test_a_problem_is_one_line_with_place_and_field():
    problem = Problem("rules/github.yaml", 10, 15, "spec.ports[0].port", "70000 is not a port (use 1-65535)")
    assert str(problem) == "rules/github.yaml:10:15: spec.ports[0].port: 70000 is not a port (use 1-65535)"
    assert problem.is_error


def test_a_problem_without_field_or_place():
    assert str(Problem("a.yaml", 1, 2, "", "odd")) == "a.yaml:1:2: odd"
    assert str(Problem("rules", 0, 0, "", "missing")) == "rules: missing"


def test_errors_read_one_line_each_and_keep_the_warnings_apart():
    error = Problem("a", 1, 1, "", "x")
    warning = Problem("a", 1, 1, "", "y", Severity.WARNING)
    raised = RuleErrors([error, warning, error])
    assert str(raised) == "a:1:1: x\na:1:1: x"
    assert raised.problems == (error, warning, error)
    assert raised.errors == (error, error)


def test_problems_come_in_the_order_of_the_file_and_warnings_do_not_crowd_out_errors():
    problems = Problems("a", 2)
    for line in (3, 2, 1):
        problems.add(line, 1, "", "odd", Severity.WARNING)
    problems.add(2, 0, "", "wrong")
    assert [str(problem) for problem in problems.all()] == [
        "a:2:0: wrong",
        "a:2:1: odd",
        "a:3:1: odd",
        "a: more warnings that are not shown: 1",
    ]


def test_what_is_shown_is_printable_and_short():
    assert shown("a\n\x1b[31mü\u202e") == r"a\n\x1b[31mü\u202e"
    assert shown("x" * 100) == "x" * 59 + "…"
