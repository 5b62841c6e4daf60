"""Every case of Istio 0.7's own tests of EgressRule (`validation_test.go`), and the phrases its users know."""

import pytest

from egress_gateway.config.load import parse_documents
from egress_gateway.policy.rule import Protocol


def rule(service='"www.example.com"', ports="- {port: 443, protocol: https}", more=""):
    return (
        "apiVersion: config.istio.io/v1alpha2\nkind: EgressRule\nmetadata: {name: x}\nspec:\n"
        f"  destination:\n    service: {service}\n  ports:\n  {ports}\n{more}"
    )


def errors(text):
    return [str(problem) for problem in parse_documents(text, "x.yaml").errors]


def only_rule(text):
    parsed = parse_documents(text, "x.yaml")
    assert parsed.errors == ()
    (found,) = parsed.rules
    return found


def only_error(text):
    (error,) = errors(text)
    return error


VALID_DOMAINS = ["cnn.com", "10.0.0.100", "*cnn.com", "*.cnn.com", "*-cnn.com", "*.0.0.100", "*0.0.100"]
VALID_DOMAINS += ["*com", "*0", "*", "CNN.com", "x" * 63, "*.bar.com", "*foo", "*foo.bar.com", "*-foo.bar.com"]
VALID_SERVICES = ["192.168.3.0/24", "50.1.2.3/32", "10.15.0.0/16", "10.15.0.0/0"]
INVALID_DOMAINS = ["cnn..com", "cnn.com:80", "*cnn*.com", "cnn.*.com", "**com", "**0", "", "*."]
INVALID_DOMAINS += ["x" * 256, "foo.*.com", "foo*.bar.com"]
INVALID_SERVICES = ["10.15.0/16", "10.15.0.0/33"]


@pytest.mark.parametrize("service", VALID_DOMAINS)
def test_valid_domain(service):
    assert only_rule(rule(f'"{service}"')).destinations


@pytest.mark.parametrize("service", VALID_SERVICES)
def test_valid_cidr_service(service):
    assert only_rule(rule(f'"{service}"', "- {port: 443, protocol: tcp}")).destinations


@pytest.mark.parametrize("service", INVALID_DOMAINS + INVALID_SERVICES)
def test_invalid_service(service):
    error = only_error(rule(f'"{service}"', "- {port: 443, protocol: tcp}"))
    assert error.startswith("x.yaml:6:14: spec.destination.service: ")
    assert "(" in error  # says what to write instead


def test_an_empty_service_has_the_phrase_of_istio():
    assert only_error(rule('""')).endswith(
        ": domain must not be empty string (write a domain, a wildcard or an address)"
    )


PORTS = [(80, "http"), (80, "http2"), (80, "grpc"), (443, "https"), (80, "https"), (443, "http"), (1, "http")]
PORTS += [(2, "https"), (80, "tcp"), (1000, "mongo"), (65535, "http"), (80, "HTTP"), (443, "Https"), (80, "gRPC")]


@pytest.mark.parametrize(("number", "protocol"), PORTS)
def test_valid_port(number, protocol):
    (port,) = only_rule(rule(ports=f"- {{port: {number}, protocol: {protocol}}}")).ports
    assert (port.number, port.protocol) == (number, Protocol(protocol.lower()))


@pytest.mark.parametrize("number", [0, 65536, -1, 70000])
def test_a_port_number_out_of_range(number):
    error = only_error(rule(ports=f"- {{port: {number}, protocol: http}}"))
    assert error == (
        f"x.yaml:8:12: spec.ports[0].port: port number {number} must be in the range 1..65535 "
        "(use a number from 1 to 65535)"
    )


@pytest.mark.parametrize("protocol", ["udp", "redis", "tls", "mysql", "quic", "foo", '""'])
def test_a_protocol_that_is_not_supported(protocol):
    error = only_error(rule(ports=f"- {{port: 80, protocol: {protocol}}}"))
    assert error.startswith(
        "x.yaml:8:26: spec.ports[0].protocol: egress rule support is available only for the following protocols: "
        "HTTP,HTTP2,GRPC,HTTPS,TCP,MONGO ("
    )


def test_valid_rule_for_a_wildcard_on_two_ports():
    made = only_rule(rule('"*cnn.com"', "- {port: 80, protocol: http}\n  - {port: 443, protocol: https}"))
    assert str(made.destinations[0]) == "*cnn.com"
    assert [port.number for port in made.ports] == [80, 443]


def test_valid_rule_for_one_address_on_http_and_https():
    made = only_rule(rule("192.168.3.0", "- {port: 80, protocol: http}\n  - {port: 443, protocol: https}"))
    assert str(made.destinations[0]) == "192.168.3.0"


def test_valid_rule_for_a_network_on_tcp():
    made = only_rule(rule("192.168.3.0/24", "- {port: 80, protocol: tcp}\n  - {port: 443, protocol: mongo}"))
    assert str(made.destinations[0]) == "192.168.3.0/24"


HEAD = "apiVersion: config.istio.io/v1alpha2\nkind: EgressRule\nmetadata: {name: x}\n"
NO_DESTINATION = 'destination of egress rule must have destination field (write destination: {service: "…"})'
NO_PORTS = "egress rule must have a ports list (write ports: [{port: 443, protocol: https}])"


@pytest.mark.parametrize("spec", ["", "spec:\n", "spec: {}\n"], ids=["nothing at all", "empty spec", "an empty rule"])
def test_invalid_rule_without_anything(spec):
    place = {"": "x.yaml:1:1", "spec:\n": "x.yaml:4:1", "spec: {}\n": "x.yaml:4:7"}[spec]
    assert errors(HEAD + spec) == [
        f"{place}: spec.destination: {NO_DESTINATION}",
        f"{place}: spec.ports: {NO_PORTS}",
    ]


def test_invalid_rule_with_http_on_a_network():
    text = rule("192.168.3.0/24", "- {port: 80, protocol: tcp}\n  - {port: 443, protocol: http}")
    assert only_error(text) == (
        "x.yaml:9:27: spec.ports[1].protocol: Only the following protocols can be defined for CIDR destination service "
        "notation: TCP,MONGO. This rule - port: 443 protocol: http destination.service: 192.168.3.0/24 "
        "(write tcp, or single addresses)"
    )


@pytest.mark.parametrize("name", ["useEgressProxy", "use_egress_proxy"])
def test_invalid_rule_with_the_egress_proxy(name):
    ports = "- {port: 80, protocol: http}\n  - {port: 8080, protocol: http}"
    assert only_error(rule('"*cnn.com"', ports, f"  {name}: true\n")) == (
        f"x.yaml:10:{5 + len(name)}: spec.{name}: directing traffic through egress proxy is not implemented yet "
        "(write false or leave it out)"
    )


@pytest.mark.parametrize("name", ["useEgressProxy", "use_egress_proxy"])
def test_the_egress_proxy_may_be_declined(name):
    assert only_rule(rule(more=f"  {name}: false\n"))


def test_invalid_rule_with_an_empty_destination():
    text = HEAD + "spec:\n  destination: {}\n  ports:\n  - {port: 80, protocol: http}\n"
    assert only_error(text) == (
        "x.yaml:5:16: spec.destination.service: domain must not be empty string "
        "(write a domain, a wildcard or an address)"
    )


@pytest.mark.parametrize(("ports", "column"), [("ports: []", 3), ("ports:", 3)])
def test_invalid_rule_with_empty_ports(ports, column):
    text = HEAD + f"spec:\n  destination: {{service: cnn.com}}\n  {ports}\n"
    assert only_error(text) == f"x.yaml:6:{column}: spec.ports: {NO_PORTS}"


def test_invalid_rule_with_a_port_twice_whatever_the_protocol():
    ports = "- {port: 80, protocol: http}\n  - {port: 443, protocol: https}\n  - {port: 80, protocol: https}"
    assert only_error(rule('"*cnn.com"', ports)) == (
        "x.yaml:10:12: spec.ports[2].port: duplicate port: 80 (name a port once in a rule, whatever the protocol)"
    )


@pytest.mark.parametrize("name", ["name", "namespace", "domain", "labels"])
def test_a_destination_of_istio_services_is_refused(name):
    value = "{a: b}" if name == "labels" else "x"
    text = HEAD + (
        f"spec:\n  destination:\n    service: cnn.com\n    {name}: {value}\n  ports: [{{port: 80, protocol: tcp}}]\n"
    )
    assert only_error(text) == (
        f"x.yaml:7:5: spec.destination.{name}: destination of egress rule must not have {name} field "
        "(write the destination as service)"
    )


@pytest.mark.parametrize("service", ["10.15.0/16", "10.15.0.0/33", "a/24", "10.0.0.0/", "10.0.0.0/255.0.0.0", "/8"])
def test_not_a_cidr_block(service):
    error = only_error(rule(f'"{service}"', "- {port: 443, protocol: tcp}"))
    assert f"{service} is not a valid CIDR block (" in error


def test_the_api_version_may_be_left_out_and_the_namespace_defaults():
    made = only_rule(rule().removeprefix("apiVersion: config.istio.io/v1alpha2\n"))
    assert (made.api_version, made.key) == ("config.istio.io/v1alpha2", "default/x")


@pytest.mark.parametrize(
    ("field", "where"),
    [
        ("  action: deny", "spec.action"),
        ("  allowBroadWildcard: true", "spec.allowBroadWildcard"),
        ("  tls: {mode: originate}", "spec.tls"),
    ],
)
def test_a_field_of_our_own_version_says_so(field, where):
    assert only_error(rule(more=field + "\n")) == (
        f"x.yaml:9:3: {where}: is a field of egress.mitmproxy/v1 (write apiVersion: egress.mitmproxy/v1 to use it)"
    )


def test_what_istioctl_prints_can_be_read_back():
    text = rule().replace("{name: x}", "{name: x, creationTimestamp: null, resourceVersion: '12', selfLink: /x}")
    assert only_rule(text)


def test_every_problem_of_a_file_is_reported_at_once():
    text = rule('"cnn..com"', "- {port: 0, protocol: udp}\n  - {prot: 1}") + "---\nkind: Egress\n---\nmetadata: {}\n"
    places = [":".join(error.split(":")[1:4]) for error in errors(text)]
    assert places == [
        "6:14: spec.destination.service",
        "8:12: spec.ports[0].port",
        "8:25: spec.ports[0].protocol",
        "9:5: spec.ports[1].port",
        "9:5: spec.ports[1].protocol",
        "9:6: spec.ports[1].prot",
        "11:7: kind",
        "13:1: kind",
    ]
