"""The services of the shop: a page with everything, and a page with gaps that says what is missing."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_DETAILS = {"publisher": "Ours & <Theirs>", "year": 1999, "pages": 7, "language": "en", "ISBN-10": "0", "ISBN-13": "1"}


@pytest.fixture(scope="module")
def bookinfo() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(_ROOT)  # as for `python -m demo`
        names = ("details", "page", "productpage", "ratings", "reviews", "service")
        yield {name: importlib.import_module(f"demo.bookinfo.{name}") for name in names}
    for name in [name for name in sys.modules if name.partition(".")[0] == "demo"]:
        del sys.modules[name]


@pytest.fixture
def alone(bookinfo: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """A shop whose services do not find each other."""
    for module in (bookinfo["productpage"], bookinfo["reviews"]):
        monkeypatch.setattr(module, "ask", lambda service, path: None)
    return bookinfo


def test_a_page_with_everything(bookinfo: dict[str, ModuleType]) -> None:
    page = bookinfo["page"]
    html = page.render(_DETAILS, [{"reviewer": "A", "text": "B < C", "stars": 3}])
    assert page.DETAILS_ERROR not in html
    assert page.REVIEWS_ERROR not in html
    assert "<td>1999</td>" in html
    assert "★★★<s>★★</s>" in html


def test_what_others_say_is_text_and_not_html(bookinfo: dict[str, ModuleType]) -> None:
    html = bookinfo["page"].render(_DETAILS, [{"reviewer": "<i>A", "text": "<script>", "stars": None}])
    assert "Ours &amp; &lt;Theirs&gt;" in html
    assert "&lt;script&gt;" in html
    assert "&lt;i&gt;A" in html


def test_a_page_whose_services_are_away_says_so(alone: dict[str, ModuleType]) -> None:
    answer = alone["productpage"].answer("/productpage")
    assert answer.status == 200
    assert "Error fetching product details" in answer.body.decode()
    assert "Error fetching product reviews" in answer.body.decode()


def test_reviews_without_ratings_have_no_stars(alone: dict[str, ModuleType]) -> None:
    reviews = json.loads(alone["reviews"].answer("/reviews/0").body)["reviews"]
    assert reviews
    assert {review["stars"] for review in reviews} == {None}


def test_a_service_that_is_not_there_has_no_answer(
    bookinfo: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookinfo["service"], "PORT", 1)
    assert bookinfo["service"].ask("127.0.0.1", "/details/0") is None


@pytest.mark.parametrize("name", ["details", "ratings", "reviews", "productpage"])
def test_other_paths_are_nothing(bookinfo: dict[str, ModuleType], name: str) -> None:
    assert bookinfo[name].answer("/") is None


def test_every_reader_has_a_rating(bookinfo: dict[str, ModuleType]) -> None:
    assert bookinfo["ratings"].STARS.keys() == bookinfo["reviews"].TEXTS.keys()
