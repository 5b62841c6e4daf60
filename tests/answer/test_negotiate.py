import pytest

from egress_gateway.answer.negotiate import preferred

OFFERED = ("text/plain", "application/problem+json", "application/json", "text/html")
TEXT, PROBLEM, JSON, HTML = OFFERED


@pytest.mark.parametrize(
    ("who", "accept", "expected"),
    [
        ("says nothing", "", TEXT),
        ("curl", "*/*", TEXT),
        ("a browser", "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", HTML),
        ("a JavaScript client", "application/json, text/plain, */*", JSON),
        ("an API client", "application/json", JSON),
        ("who knows RFC 9457", "application/problem+json, application/json;q=0.5", PROBLEM),
        ("any application type", "application/*", PROBLEM),
        ("any text", "text/*", TEXT),
        ("any text but plain", "text/*, text/plain;q=0", HTML),
        ("prefers by quality", "text/plain;q=0.2, text/html;q=0.9", HTML),
        ("a quality with more parameters", "text/html;level=1;q=0.1, text/plain;q=0.2", TEXT),
        ("the precise range counts", "text/html;q=0.1, text/*;q=0.5, */*;q=0.9", PROBLEM),
        ("upper case", "TEXT/HTML", HTML),
        ("wants what we have not", "image/png", TEXT),
        ("precise before earlier", "*/*, text/html", HTML),
        ("refuses one", "text/html;q=0", TEXT),
        ("refuses everything", "*/*;q=0", TEXT),
        ("a quality of more than 1 counts as none", "text/html;q=5, application/json;q=0.1", JSON),
        ("a quality that is no number counts as none", "text/html;q=nan, application/json;q=0.1", JSON),
        ("a negative quality", "text/html;q=-1, application/json;q=0.1", JSON),
        ("Arabic digits", "text/html;q=\u0660.\u0669, application/json;q=0.1", JSON),
        ("nonsense", ";;;,,,q=1,/,text/html;q", HTML),
        ("a hundred ranges before the one", "a/b," * 100 + "text/html", TEXT),
        ("a header without end", "x" * 1_000_000, TEXT),
    ],
)
def test_the_form_that_is_asked_for(who: str, accept: str, expected: str) -> None:
    assert preferred(accept, OFFERED) == expected, who
