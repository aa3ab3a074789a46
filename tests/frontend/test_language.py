"""The second language: complete, with every placeholder and tag of its English, compiled, and shown when chosen."""

import gettext
import re
from collections import Counter
from collections.abc import Iterator
from io import BytesIO

import pytest
from babel.messages import Message
from django.test import Client
from django.urls import reverse
from django.utils import translation

from pld_app.devstack.messages import (
    LANGUAGES,
    catalogue_bytes,
    catalogue_merged,
    catalogue_path,
    catalogue_read,
    strings_found,
    untranslated,
)

pytestmark = pytest.mark.usefixtures("_present_language")
_PIECES = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}|</?\w+[^>]*>|&\w+;")


@pytest.fixture
def _present_language() -> Iterator[None]:
    """A request leaves its language active in this thread; the next test begins with the one before."""
    with translation.override(translation.get_language()):
        yield


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalogue_is_that_of_the_source_and_complete(language: str) -> None:
    """Run `./dev messages` after a change of strings; it names those without a translation."""
    present = catalogue_read(language)
    wanted = {(str(message.id), message.context) for message in catalogue_merged(language, strings_found())}
    assert {(str(message.id), message.context) for message in present} == wanted
    assert untranslated(present) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_and_tags_are_kept(language: str) -> None:
    wrong = [message.id for message in catalogue_read(language) if message.id and not _keeps_pieces(message)]
    assert wrong == []


def _keeps_pieces(message: Message) -> bool:
    english = message.id if isinstance(message.id, tuple | list) else (message.id,)
    theirs = message.string if isinstance(message.string, tuple | list) else (message.string,)
    # A singular may leave its number out ("one trace"), so each plural form must fit one of the English forms.
    wanted = [Counter(_PIECES.findall(text)) for text in english]
    return all(not text or Counter(_PIECES.findall(text)) in wanted for text in theirs)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_django_reads_is_compiled_from_what_people_read(language: str) -> None:
    compiled = gettext.GNUTranslations(BytesIO(catalogue_path(language, "mo").read_bytes()))
    fresh = gettext.GNUTranslations(BytesIO(catalogue_bytes(catalogue_read(language))))
    assert vars(compiled)["_catalog"] == vars(fresh)["_catalog"]


@pytest.mark.django_db
def test_a_language_once_chosen_stays_for_this_browser() -> None:
    client = Client()
    assert '<html lang="en">' in client.get(reverse("login")).content.decode()
    answer = client.post(reverse("set-language"), {"language": "de", "next": reverse("login")})
    assert answer.headers["Location"] == reverse("login")
    assert '<html lang="de">' in client.get(reverse("login")).content.decode()


@pytest.mark.django_db
def test_a_choice_of_language_leads_nowhere_else() -> None:
    answer = Client().post(reverse("set-language"), {"language": "de", "next": "https://elsewhere.example/"})
    assert answer.headers["Location"] == "/"
