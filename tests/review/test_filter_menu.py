"""The menu of topics writes its own HTML, so it is held to what Django's would say."""

from html.parser import HTMLParser

from django import forms

from rules.forms.review import LongSelect

HOSTILE = '"><script>alert(1)</script>'
CHOICES = [("", "All topics"), ("a & b", "a & b"), (HOSTILE, HOSTILE)]


class Tags(HTMLParser):
    """Start tags with their attributes, and the text between them."""

    def __init__(self, html: object) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.feed(str(html))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.seen += [data.strip()] if data.strip() else []


def read(widget: forms.Select, value: str) -> list[object]:
    return Tags(widget.render("topic", value, attrs={"id": "id_topic"})).seen


def test_the_menu_reads_as_djangos_own_does() -> None:
    for value in ("", "a & b", HOSTILE, "unknown"):
        ours, django = read(LongSelect(choices=CHOICES), value), read(forms.Select(choices=CHOICES), value)
        assert _without_empty(ours) == _without_empty(django)


def test_a_hostile_topic_opens_no_tag() -> None:
    tags = [seen[0] for seen in read(LongSelect(choices=CHOICES), HOSTILE) if isinstance(seen, tuple)]
    assert tags == ["select", "option", "option", "option"]


def _without_empty(seen: list[object]) -> list[object]:
    # Django marks no option when the value is empty; the first one is shown either way.
    return [one for one in seen if not (isinstance(one, tuple) and one[1].get("value") == "")]
