"""What may be asked, and one line for what may not."""

from __future__ import annotations

import pytest

from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.options import parse
from egress_gateway.containment.targets import PUBLIC, Targets


def test_without_options_public_servers_are_tried_over_both_families() -> None:
    options = parse([])
    assert options.targets == PUBLIC
    assert options.families == (Family.V4, Family.V6)
    assert options.timeout == 3
    assert options.ports == (22, 25, 587, 3128, 8080, 8443, 50022)
    assert options.udp_ports == (443, 123, 853, 3478, 5353, 51820, 33434)
    assert options.gateway_ports == (22, 8081, 9464)
    assert options.denied_name == "denied.gateway-check.invalid"
    assert not options.json
    assert not options.quiet


def test_whoever_names_a_host_wants_no_other() -> None:
    targets = parse(["--target", "203.0.113.9", "--target", "203.0.113.9"]).targets
    ours = ("203.0.113.9",)
    assert targets[Family.V4] == Targets(ours, (("203.0.113.9", "dns.google"),), ours)
    assert targets[Family.V6] == Targets((), (), ())


def test_a_dns_server_takes_the_place_of_the_others() -> None:
    targets = parse(["--target", "203.0.113.9", "--target", "2001:db8::9", "--dns-server", "203.0.113.53"]).targets
    assert targets[Family.V4].dns_servers == (("203.0.113.53", "dns.google"),)
    assert targets[Family.V6].dns_servers == ()
    targets = parse(["--dns-server", "203.0.113.53"]).targets
    assert targets[Family.V4].hosts == PUBLIC[Family.V4].hosts
    assert targets[Family.V4].dns_servers == (("203.0.113.53", "dns.google"),)
    assert targets[Family.V6].dns_servers == ()


def test_a_known_resolver_keeps_its_own_name() -> None:
    targets = parse(["--dns-server", "1.1.1.1"]).targets
    assert targets[Family.V4].dns_servers == (("1.1.1.1", "cloudflare-dns.com"),)


def test_lists_of_ports_may_be_empty_and_repeat_themselves() -> None:
    assert parse(["--ports", "22, 80,22"]).ports == (22, 80)
    assert parse(["--ports", ""]).ports == ()
    assert parse(["--gateway-ports", ""]).gateway_ports == ()


def test_addresses_are_written_in_one_way() -> None:
    options = parse(["--gateway", "2001:DB8:0::1", "--gateway", "10.0.0.1", "--target", "2001:DB8:0::9"])
    assert options.gateways == {Family.V6: "2001:db8::1", Family.V4: "10.0.0.1"}
    assert options.targets[Family.V6].hosts == ("2001:db8::9",)


NOT_UNDERSTOOD = {
    ("--target", "example.com"): "argument --target: 'example.com' is not an IP address",
    ("--target", "127.0.0.1"): "argument --target: 127.0.0.1 is not the address of a host behind the gateway",
    ("--target", "fe80::1"): "argument --target: fe80::1 is not the address of a host behind the gateway",
    ("--dns-server", "224.0.0.251"): "argument --dns-server: 224.0.0.251 is not the address of a host behind",
    ("--gateway", "here"): "argument --gateway: 'here' is not an IP address",
    ("--gateway", "10.0.0.1", "--gateway", "10.0.0.2"): "argument --gateway: one address of each family is enough",
    ("--ports", "22,70000"): "argument --ports: '70000' is not a port (use 1-65535, with commas between them)",
    ("--ports", "22-25"): "argument --ports: '22-25' is not a port",
    ("--ports", "²"): "argument --ports: '²' is not a port",
    ("--udp-ports", "53"): "argument --udp-ports: port 53 is tried as DNS, by checks of its own (leave it out)",
    ("--ports", ",".join(map(str, range(1000, 1051)))): "argument --ports: 51 ports are too many (use at most 50)",
    ("--denied-name", "a b"): "argument --denied-name: 'a b' is not a host name in its ASCII form",
    (
        "--denied-name",
        "bücher.example",
    ): "argument --denied-name: 'bücher.example' is not a host name",
    ("--allowed-name", f"{'a' * 64}.example"): "argument --allowed-name: 'aaaa",
    ("--allowed-name", ""): "argument --allowed-name: '' is not a host name",
    ("--timeout", "0"): "argument --timeout: '0' is not a time in seconds from 0.5 to 60",
    ("--timeout", "nan"): "argument --timeout: 'nan' is not a time in seconds from 0.5 to 60",
    ("--timeout", "soon"): "argument --timeout: 'soon' is not a time in seconds from 0.5 to 60",
    ("-o", "yaml"): "argument -o/--output: invalid choice: 'yaml'",
    ("--no-ipv",): "unrecognized arguments: --no-ipv",
    ("203.0.113.9",): "unrecognized arguments: 203.0.113.9",
}


@pytest.mark.parametrize("arguments", NOT_UNDERSTOOD, ids=lambda arguments: " ".join(arguments)[:40])
def test_a_command_line_that_is_not_understood_is_one_line(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith(f"gateway-check: {NOT_UNDERSTOOD[arguments]}")
    assert said.err.endswith(" (see gateway-check --help)\n")
    assert said.err.count("\n") == 1
