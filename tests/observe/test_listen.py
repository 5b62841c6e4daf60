import pytest

from egress_gateway.observe.listen import parse_listen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9464", ("::1", 9464)),
        (":9464", ("", 9464)),
        (" 127.0.0.1:9464 ", ("127.0.0.1", 9464)),
    ],
)
def test_addresses_to_listen_on(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["9464", "127.0.0.1", "::1:9464", "h:70000", "h:", "h:-1", "h:\u0663", "h:0x10"])
def test_what_is_no_address_is_answered_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it as 127\.0\.0\.1:9464"):
        parse_listen(text)
