from html.parser import HTMLParser

from egress_gateway.answer.page import page
from egress_gateway.answer.told import Told

TOLD = Told(
    status=403,
    title="Forbidden",
    target="GET denied.example:443/",
    reason="no_rule",
    sentence="no egress rule allows this host",
    detail="",
    rule="default/near",
    hint="default/near allows near.example",
    smallest_rule="apiVersion: config.istio.io/v1alpha2\nkind: EgressRule",
)


class Seen(HTMLParser):
    """The tags, the attributes and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_page_says_everything_and_its_tags_are_balanced() -> None:
    seen = Seen(page(TOLD))
    assert seen.open == []
    text = "".join(seen.texts)
    for said in (
        TOLD.target,
        TOLD.reason,
        TOLD.rule,
        TOLD.hint,
        TOLD.smallest_rule,
        "No egress rule allows this host.",
    ):
        assert said in text


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    seen = Seen(page(TOLD))
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & set(seen.tags)
    assert not {"src", "href", "action", "style"} & {name for name, _ in seen.attributes}
    assert "url(" not in page(TOLD)
    assert "@import" not in page(TOLD)


def test_what_there_is_nothing_to_say_of_has_no_row() -> None:
    told = Told(403, "Forbidden", "", "no_rule", "no egress rule allows this host", "", "", "", "")
    seen = Seen(page(told))
    assert seen.tags.count("dt") == 1
    assert "pre" not in seen.tags


def test_markup_in_any_text_is_text() -> None:
    evil = "</code></pre><script>alert('1')</script>\"&amp;"
    seen = Seen(page(Told(403, evil, evil, evil, evil, evil, evil, evil, evil)))
    assert "script" not in seen.tags
    assert seen.open == []
    assert "".join(seen.texts).count("<script>") == 9
