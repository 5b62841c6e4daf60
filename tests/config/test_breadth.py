"""Which wildcards cover names of people who have nothing to do with each other."""

import pytest
from publicsuffix2 import PublicSuffixList

from egress_gateway.config.breadth import covers_public_suffix, listed


@pytest.mark.parametrize(
    ("suffix", "covered"),
    [
        ("", "everything"),
        (".com", "com"),
        (".co.uk", "co.uk"),
        (".uk", "uk"),
        (".github.io", "github.io"),
        (".xn--fiqs8s", "xn--fiqs8s"),
        (".compute.amazonaws.com", "compute.amazonaws.com"),  # the list says *.compute.amazonaws.com
        ("com", "com"),
        ("o.uk", "co.uk"),
        (".example.com", None),
        (".www.github.io", None),
        (".googleapis.com", None),
        (".internal", None),
        (".cluster.local", None),
        ("example.com", None),
        ("-bar.foo.com", None),
        (".0.0.100", None),
        ("0.0.100", None),
    ],
)
def test_what_is_covered(suffix, covered):
    assert covers_public_suffix(suffix) == covered


def test_the_list_is_read_as_its_own_package_reads_it():
    assert listed() == PublicSuffixList().tlds
