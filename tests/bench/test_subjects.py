"""All subjects are told to allow the same names, and log or not alike."""

import json
from pathlib import Path

import pytest
from bench.stage import allowed_names
from bench.subjects import envoy, gateway
from bench.subjects.subject import Setting

from bench import place
from egress_gateway.config.load import load_directory


def setting(folder: Path, log: bool = False) -> Setting:
    return Setting(folder, folder / "ca.pem", allowed_names(1000), log, 9000)


def test_there_are_as_many_names_as_asked_for_and_ours_are_not_the_first() -> None:
    names = allowed_names(1000)
    assert len(set(names)) == 1000
    assert {place.WWW, place.TLS, place.UP} <= set(names)
    assert 400 < names.index(place.WWW) < 600


def test_the_gateway_has_a_rule_for_each_name(tmp_path: Path) -> None:
    gateway.write_rules(tmp_path, allowed_names(1000))
    assert len(load_directory(str(tmp_path)).ruleset.rules) == 1000


@pytest.mark.parametrize("log", [True, False])
def test_envoy_has_the_same_names_and_a_log_when_all_have_one(tmp_path: Path, log: bool) -> None:
    config = envoy.configuration(setting(tmp_path, log))
    text = json.dumps(config)
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    hosts = manager["route_config"]["virtual_hosts"]
    assert [host["domains"] for host in hosts] == [list(allowed_names(1000))]
    assert ("access.log" in text) is log
