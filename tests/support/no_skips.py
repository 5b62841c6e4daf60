"""A pytest plugin: where CI=true, a test that is skipped or expected to fail has failed.

A skip is a promise that the test runs somewhere. The machine of continuous integration is that somewhere:
it installs every program the tests call, so a skip there is a test that nobody runs any more. The reason is
shown with the failure. Without CI=true the plugin does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

CI = os.environ.get("CI") == "true"


# tryfirst: outside of pytest's own wrapper, the one which turns a failure into an xfail.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if CI:
        _fail_if_not_run(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if CI:
        _fail_if_not_run(report)
    return report


def _fail_if_not_run(report: pytest.TestReport | pytest.CollectReport) -> None:
    expected_to_fail = getattr(report, "wasxfail", None)
    if expected_to_fail is not None:
        # The terminal looks for this attribute before it looks at the outcome.
        del report.wasxfail
        reason = f"marked as expected to fail ({expected_to_fail or 'no reason given'})"
    elif report.skipped:
        # A skip's report is (path, line, "Skipped: reason").
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    else:
        return
    report.outcome = "failed"
    report.longrepr = f"{reason}. With CI=true every test has to run and to pass."
