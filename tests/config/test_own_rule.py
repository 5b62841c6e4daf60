"""`egress.mitmproxy/v1`: what it adds, and what it does not have yet."""

from ipaddress import ip_network

import pytest

from egress_gateway.config.load import parse_documents
from egress_gateway.policy.rule import AddressCheck, AddressRange, Port, Protocol, RuleAction, TlsMode

HEAD = "apiVersion: egress.mitmproxy/v1\nkind: EgressRule\nmetadata: {name: x, namespace: shop}\nspec:\n"


def rule(destination='services: ["www.example.com"]', ports="{port: 443, protocol: https}", more=""):
    return f"{HEAD}  destination: {{{destination}}}\n  ports: [{ports}]\n{more}"


def errors(text):
    return [str(problem) for problem in parse_documents(text, "x.yaml").errors]


def only_error(text):
    (error,) = errors(text)
    return error


def warnings(text):
    parsed = parse_documents(text, "x.yaml")
    assert parsed.errors == ()
    return [str(problem) for problem in parsed.warnings]


def only_rule(text):
    parsed = parse_documents(text, "x.yaml")
    assert parsed.errors == ()
    (found,) = parsed.rules
    return found


def test_several_destinations_of_every_kind():
    services = (
        '"*.Example.com", example.com., 192.0.2.7, 198.51.100.0/24, "2001:db8::/32", "2001:db8:1::1", bücher.example'
    )
    made = only_rule(rule(f"services: [{services}], allowPrivate: true", "{port: 1, protocol: tcp}"))
    assert [str(destination) for destination in made.destinations] == [
        "*.example.com",
        "example.com",
        "192.0.2.7",
        "198.51.100.0/24",
        "2001:db8::/32",
        "2001:db8:1::1",
        "xn--bcher-kva.example",
    ]
    assert made.destinations[4] == AddressRange(ip_network("2001:db8::/32"))
    assert (made.key, made.allow_private, made.api_version) == ("shop/x", True, "egress.mitmproxy/v1")


def test_service_is_a_list_of_one():
    assert (
        only_rule(rule("service: a.example.com")).destinations
        == only_rule(rule("services: [a.example.com]")).destinations
    )


def test_service_and_services_exclude_each_other():
    assert only_error(rule("service: a.example.com, services: [b.example.com]")) == (
        "x.yaml:5:17: spec.destination.service: stands beside services (write all of them in services)"
    )


@pytest.mark.parametrize("destination", ["services: []", "", "services: ", "allowPrivate: true"])
def test_a_destination_needs_a_service(destination):
    assert "spec.destination.services: domain must not be empty string (" in only_error(rule(destination))


def test_a_rule_needs_a_destination_and_ports():
    assert [error.split(": ", 1)[1] for error in errors(HEAD)] == [
        'spec.destination: egress rule must have a destination field (write destination: {services: ["…"]})',
        "spec.ports: egress rule must have a ports list (write ports: [{port: 443, protocol: https}])",
    ]


@pytest.mark.parametrize(
    ("text", "action"), [("", "allow"), ("  action: allow\n", "allow"), ("  action: Deny\n", "deny")]
)
def test_action(text, action):
    assert only_rule(rule(more=text)).action is RuleAction(action)


def test_audit_is_not_supported_yet():
    assert only_error(rule(more="  action: audit\n")) == (
        "x.yaml:7:11: spec.action: audit is not supported yet (use allow or deny)"
    )


def test_an_unknown_action():
    assert only_error(rule(more="  action: denny\n")) == (
        "x.yaml:7:11: spec.action: denny is not a choice here (did you mean deny?)"
    )


def test_a_target_port_and_the_mode_of_a_port():
    made = only_rule(rule(ports="{port: 80, protocol: http, targetPort: 443, tls: {mode: originate}}"))
    assert made.ports == (Port(80, Protocol.HTTP, 443, TlsMode.ORIGINATE),)


def test_a_target_port_out_of_range():
    assert "spec.ports[0].targetPort: port number 0 must be in the range 1..65535" in only_error(
        rule(ports="{port: 80, protocol: http, targetPort: 0}")
    )


def test_the_mode_of_the_rule_is_the_default_of_its_ports():
    ports = "{port: 443, protocol: https}, {port: 8443, protocol: https, tls: {mode: passthrough}}"
    made = only_rule(rule(ports=ports, more="  tls: {mode: originate}\n"))
    assert [port.tls_mode for port in made.ports] == [TlsMode.ORIGINATE, TlsMode.PASSTHROUGH]


@pytest.mark.parametrize(
    ("protocol", "mode"), [("http", "originate"), ("https", "originate"), ("https", "passthrough")]
)
def test_a_mode_that_a_protocol_admits(protocol, mode):
    made = only_rule(rule(ports=f"{{port: 80, protocol: {protocol}, tls: {{mode: {mode}}}}}"))
    assert made.ports[0].tls_mode is TlsMode(mode)


REFUSED_MODES = [(protocol, "passthrough", "https only") for protocol in ("http", "http2", "grpc", "tcp", "mongo")]
REFUSED_MODES += [(protocol, "originate", "http and https") for protocol in ("http2", "grpc", "tcp", "mongo")]


@pytest.mark.parametrize(("protocol", "mode", "wanted"), REFUSED_MODES)
def test_a_mode_that_a_protocol_does_not_admit(protocol, mode, wanted):
    error = only_error(rule(ports=f"{{port: 80, protocol: {protocol}, tls: {{mode: {mode}}}}}"))
    assert f"spec.ports[0].tls.mode: {mode} is for {wanted}, not for {protocol} (leave tls out)" in error


def test_a_default_mode_that_one_of_the_ports_does_not_admit():
    ports = "{port: 443, protocol: https}, {port: 80, protocol: http}"
    assert only_error(rule(ports=ports, more="  tls: {mode: passthrough}\n")) == (
        "x.yaml:7:15: spec.tls.mode: passthrough is for https only, which spec.ports[1] is not "
        "(set tls.mode on the ports that need it)"
    )


def test_inspect_is_not_supported_yet():
    assert "spec.tls.mode: inspect is not supported yet (use originate or passthrough)" in only_error(
        rule(more="  tls: {mode: inspect}\n")
    )


NOT_YET = [
    ("  from: [{cidr: 10.2.0.0/16}]\n", "spec.from"),
    ("  http: [{methods: [GET]}]\n", "spec.http"),
    ("  quota: {requests: 1}\n", "spec.quota"),
    ("  authorize: {opa: x}\n", "spec.authorize"),
    ("  expires: 2027-01-31T00:00:00Z\n", "spec.expires"),
    *(
        (f"  tls: {{{name}: x}}\n", f"spec.tls.{name}")
        for name in ("caCertificates", "clientCertificate", "privateKey", "sni", "subjectAltNames", "minVersion", "ech")
    ),
]


@pytest.mark.parametrize(("more", "where"), NOT_YET)
def test_a_field_that_is_not_supported_yet(more, where):
    assert only_error(rule(more=more)).endswith(f": {where}: is not supported yet (leave it out)")


@pytest.mark.parametrize("check", AddressCheck)
def test_what_happens_at_an_address_that_is_not_the_names(check):
    assert only_rule(rule(f"service: a.example.com, check: {check.value}")).check is check
    assert only_rule(rule(f"service: a.example.com, check: {check.value.upper()}")).check is check


def test_it_is_enforced_where_nothing_is_said():
    assert only_rule(rule()).check is AddressCheck.ENFORCE


def test_a_check_that_does_not_exist():
    error = only_error(rule("service: a.example.com, check: warn"))
    assert "spec.destination.check: " in error
    assert "enforce, redial" in error


@pytest.mark.parametrize("protocol", ["tls", "udp", "quic"])
def test_a_protocol_that_is_not_supported_yet(protocol):
    error = only_error(rule(ports=f"{{port: 443, protocol: {protocol}}}"))
    assert f"spec.ports[0].protocol: {protocol} is not supported yet (use http or " in error


def test_an_egress_source_is_not_supported_yet():
    text = "apiVersion: egress.mitmproxy/v1\nkind: EgressSource\nmetadata: {name: x}\nspec: {cidrs: [10.2.3.4/32]}\n"
    assert only_error(text) == "x.yaml:2:7: kind: EgressSource is not supported yet (only EgressRule is)"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("  portz: 1\n", "x.yaml:7:3: spec.portz: unknown field (did you mean ports?)"),
        ("  Action: deny\n", "x.yaml:7:3: spec.Action: unknown field (did you mean action?)"),
        (
            "  allowbroadwildcard: true\n",
            "x.yaml:7:3: spec.allowbroadwildcard: unknown field (did you mean allowBroadWildcard?)",
        ),
        (
            "  xyzzy: 1\n",
            "x.yaml:7:3: spec.xyzzy: unknown field (use action, destination, ports, tls, allowBroadWildcard)",
        ),
    ],
)
def test_an_unknown_field_names_the_nearest(more, error):
    assert only_error(rule(more=more)) == error


@pytest.mark.parametrize("wildcard", ["*foo.com", "*-bar.foo.com", "*com"])
def test_a_wildcard_inside_a_label_is_for_istio_only(wildcard):
    assert " cuts a label in two (write *." in only_error(rule(f'service: "{wildcard}"'))


BROAD = ["*", "*.com", "*.co.uk", "*.github.io", "*.uk"]


@pytest.mark.parametrize("wildcard", BROAD)
def test_a_broad_wildcard_is_an_error(wildcard):
    error = only_error(rule(f'service: "{wildcard}"'))
    assert error.startswith(f"x.yaml:5:26: spec.destination.service: {wildcard} covers ")
    assert error.endswith("or write spec.allowBroadWildcard: true)")


@pytest.mark.parametrize("wildcard", BROAD)
def test_a_broad_wildcard_may_be_meant(wildcard):
    assert warnings(rule(f'service: "{wildcard}"', more="  allowBroadWildcard: true\n")) == []


@pytest.mark.parametrize("wildcard", ["*.example.com", "*.googleapis.com", "*.svc.cluster.local", "*.internal"])
def test_a_wildcard_of_one_owner_is_fine(wildcard):
    assert warnings(rule(f'service: "{wildcard}"')) == []


def test_a_broad_deny_is_fine():
    assert warnings(rule('services: ["*", 10.0.0.1]', more="  action: deny\n")) == []


@pytest.mark.parametrize(
    ("destination", "ports", "more", "field"),
    [
        ("service: a.example.com, allowPrivate: true", "{port: 1, protocol: tcp}", "", "spec.destination.allowPrivate"),
        ("service: a.example.com, check: redial", "{port: 1, protocol: tcp}", "", "spec.destination.check"),
        ("service: a.example.com", "{port: 1, protocol: tcp, targetPort: 2}", "", "spec.ports[0].targetPort"),
        ("service: a.example.com", "{port: 1, protocol: https, tls: {mode: originate}}", "", "spec.ports[0].tls"),
        ("service: a.example.com", "{port: 1, protocol: https}", "  tls: {mode: originate}\n", "spec.tls"),
        (
            "service: a.example.com",
            "{port: 1, protocol: tcp}",
            "  allowBroadWildcard: true\n",
            "spec.allowBroadWildcard",
        ),
    ],
)
def test_how_to_treat_traffic_means_nothing_in_a_deny(destination, ports, more, field):
    error = only_error(rule(destination, ports, more + "  action: deny\n"))
    assert error.endswith(f" {field}: means nothing with action: deny (leave it out)")


def test_http_to_a_network_is_refused_here_too():
    assert "Only the following protocols can be defined for CIDR destination" in only_error(
        rule("service: 192.0.9.0/24")
    )


PRIVATE = [
    ("10.0.0.1", "private"),
    ("10.2.0.0/16", "private"),
    ("127.0.0.1", "loopback"),
    ("169.254.9.9", "link_local"),
    ("'fd00::1'", "private"),
    ("'64:ff9b::10.0.0.1'", "private"),
    ("100.64.0.0/16", "carrier_grade_nat"),
]


@pytest.mark.parametrize(("service", "kind"), PRIVATE)
def test_a_private_address_without_allow_private_warns(service, kind):
    (warning,) = warnings(rule(f"service: {service}", "{port: 1, protocol: tcp}"))
    assert warning == (
        f"x.yaml:5:26: spec.destination.service: is a private address ({kind}) and has no effect until "
        "spec.destination.allowPrivate: true"
    )


@pytest.mark.parametrize(("service", "_"), [*PRIVATE, ("169.254.169.254", "metadata")])
def test_a_private_address_with_allow_private_is_fine(service, _):
    text = rule(f"service: {service}, allowPrivate: true", "{port: 1, protocol: tcp}")
    assert warnings(text) == []
    assert only_rule(text).allow_private


@pytest.mark.parametrize("allow", ["", ", allowPrivate: true"])
@pytest.mark.parametrize("service", ["224.0.0.1", "240.0.0.0/8"])
def test_a_range_that_is_never_dialled_warns(service, allow):
    (warning,) = warnings(rule(f"service: {service}{allow}", "{port: 1, protocol: tcp}"))
    assert "lies in a range that is never dialled" in warning


def test_a_metadata_address_without_allow_private_warns():
    (warning,) = warnings(rule("service: 169.254.169.254", "{port: 80, protocol: http}"))
    assert "cloud metadata address and has no effect" in warning


def test_the_same_destination_twice_warns():
    (warning,) = warnings(rule("services: [a.example.com, A.example.com.]"))
    assert warning == "x.yaml:5:43: spec.destination.services[1]: a.example.com is named twice (leave one out)"


def test_a_bad_destination_among_good_ones_has_its_place():
    assert only_error(rule("services: [a.example.com, b..example.com]")).startswith(
        "x.yaml:5:43: spec.destination.services[1]: b..example.com is not a domain or address: empty label"
    )


@pytest.mark.parametrize(
    ("service", "better"), [("::ffff:192.0.9.1", "192.0.9.1"), ("::ffff:192.0.9.0/120", "192.0.9.0/24")]
)
def test_ipv4_dressed_as_ipv6_is_written_plainly(service, better):
    assert only_error(rule(f"service: '{service}'", "{port: 1, protocol: tcp}")).endswith(f"(write {better})")


@pytest.mark.parametrize("nothing", ["~", "null"])
def test_an_empty_place_in_a_list(nothing):
    assert only_error(rule(f"services: [a.example.com, {nothing} , b.example.com]")).endswith(
        'spec.destination.services[1]: a string is needed (write "" if it is meant to be empty)'
    )


def test_all_that_is_wrong_in_a_list_and_in_labels_is_said_at_once():
    text = rule('services: [1, [a], "x..y"]').replace("{name: x,", "{name: x, labels: {a: 1, b: [2]},")
    assert len(errors(text)) == 5
