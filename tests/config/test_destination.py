"""What the text of a service means, and what is said of one that means nothing."""

import pytest

from egress_gateway.config.destination import BadService, parse_service
from egress_gateway.config.load import parse_documents


def warnings(service, protocol="tcp"):
    text = (
        f"kind: EgressRule\nmetadata: {{name: x}}\nspec: {{destination: {{service: '{service}'}}, "
        f"ports: [{{port: 1, protocol: {protocol}}}]}}"
    )
    parsed = parse_documents(text, "x.yaml")
    assert parsed.errors == ()
    return [problem.message for problem in parsed.warnings], parsed.rules[0]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("CNN.com", "cnn.com"),
        ("cnn.com.", "cnn.com"),
        ("a_b.example.com", "a_b.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("*foo.bücher.example", "*foo.xn--bcher-kva.example"),
        ("*.Foo.com.", "*.foo.com"),
        ("*", "*"),
        ("*-Bar.foo.com", "*-bar.foo.com"),
        ("192.0.2.7", "192.0.2.7"),
        ("10.15.0.0/0", "0.0.0.0/0"),
        ("50.1.2.3/24", "50.1.2.0/24"),
        ("50.1.2.3/32", "50.1.2.3"),
    ],
)
def test_the_canonical_form(text, canonical):
    assert str(parse_service(text, istio=True).destination) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.1", "127.1 is read as the address 127.0.0.1 (write 127.0.0.1)"),
        ("2130706433", "2130706433 is read as the address 127.0.0.1 (write 127.0.0.1)"),
        ("0x7f000001", "0x7f000001 is read as the address 127.0.0.1 (write 127.0.0.1)"),
        ("0177.0.0.1", "0177.0.0.1 is read as the address 127.0.0.1 (write 127.0.0.1)"),
        ("\uff11\uff12\uff17.0.0.1", "\uff11\uff12\uff17.0.0.1 is read as the address 127.0.0.1 (write 127.0.0.1)"),
        ("1.2.3.4.", "1.2.3.4. is read as the address 1.2.3.4 (write 1.2.3.4)"),
        ("cnn.com:80", "cnn.com:80 has a port (write cnn.com, and the port in spec.ports)"),
        ("https://cnn.com/", "https://cnn.com/ is a URL (write only its host, and its port in spec.ports)"),
        ("*.cnn.com:80", "*.cnn.com:80 has a port (write the port in spec.ports)"),
        ("cnn.com/a/b", "cnn.com/a/b has a path (write only the host)"),
        ("cnn.*.com", "cnn.*.com has a * that is not its first character (write *.example.com)"),
        ("**com", "**com has more than one * (it may only be the first character)"),
        ("*bücher.example", "*bücher.example cuts an internationalised label in two (write *.bücher.example)"),
        ("2001:db8::1", "2001:db8::1 is an IPv6 address (they need apiVersion: egress.mitmproxy/v1)"),
        ("2001:db8::/32", "2001:db8::/32 is an IPv6 CIDR block (they need apiVersion: egress.mitmproxy/v1)"),
        (
            "a b.com",
            "a b.com is not a domain or address: character U+0020 cannot be part of a host name "
            "(leave the white space out)",
        ),
        (
            "256.1.1.1",
            "256.1.1.1 is not a domain or address: a part of an IPv4 address is too large "
            "(write a domain such as www.example.com)",
        ),
        ("*.10.0.0.0/8", "*.10.0.0.0/8 is neither a wildcard nor a CIDR block (write *.example.com)"),
    ],
)
def test_what_means_nothing_says_what_to_write(text, message):
    with pytest.raises(BadService) as caught:
        parse_service(text, istio=True)
    assert str(caught.value) == message


def test_an_ipv6_address_in_brackets_is_written_without():
    with pytest.raises(BadService, match=r"\[2001:db8::1\] is in brackets \(write 2001:db8::1\)"):
        parse_service("[2001:db8::1]", istio=False)


@pytest.mark.parametrize(("cidr", "means"), [("10.15.0.0/0", "0.0.0.0/0"), ("50.1.2.3/24", "50.1.2.0/24")])
def test_host_bits_in_a_network_warn(cidr, means):
    assert warnings(cidr)[0] == [f"{cidr} means {means} (write {means})"]


def test_an_ipv6_network_in_another_spelling_does_not_warn():
    assert parse_service("2001:DB8::/32", istio=False).advice == ""


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("*", "* covers every name (name the domains that are needed)"),
        ("*.com", "*.com covers the public suffix com, below which anyone may be (name the domains that are needed)"),
        (
            "*.co.uk",
            "*.co.uk covers the public suffix co.uk, below which anyone may be (name the domains that are needed)",
        ),
        (
            "*.github.io",
            "*.github.io covers the public suffix github.io, below which anyone may be "
            "(name the domains that are needed)",
        ),
        ("*com", "*com covers the public suffix com, below which anyone may be (name the domains that are needed)"),
        (
            "*example.com",
            "*example.com covers notexample.com as well (write *.example.com for names below example.com)",
        ),
    ],
)
def test_a_wildcard_of_istio_that_matches_more_than_it_seems_to_warns(service, message):
    assert warnings(service)[0] == [message]


@pytest.mark.parametrize(
    "service", ["*.example.com", "*-bar.foo.com", "*.googleapis.com", "www.example.com", "8.8.8.8", "8.8.8.0/24"]
)
def test_an_innocent_destination_of_istio_does_not_warn(service):
    assert warnings(service)[0] == []


@pytest.mark.parametrize(
    ("service", "kind"), [("10.0.0.100", "private"), ("192.168.3.0/24", "private"), ("127.0.0.1", "loopback")]
)
def test_a_private_address_in_an_istio_rule_is_a_knowing_choice(service, kind):
    messages, rule = warnings(service)
    assert messages == [f"reaches private addresses ({kind}); is that meant?"]
    assert rule.allow_private


@pytest.mark.parametrize("service", ["169.254.169.254", "224.0.0.1", "240.0.0.0/4"])
def test_what_an_istio_rule_never_reaches_warns(service):
    messages, rule = warnings(service)
    assert len(messages) == 1
    assert "no effect" in messages[0]
    assert not rule.allow_private


@pytest.mark.parametrize("service", ["8.8.8.8", "0.0.0.0/0", "8.0.0.0/6", "www.example.com", "*.example.com"])
def test_what_is_not_wholly_private_stays_without_private_addresses(service):
    assert not warnings(service)[1].allow_private
