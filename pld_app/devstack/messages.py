"""`./dev messages`: gather the strings of pages and code, merge them into each catalogue, compile it; no gettext tools.

A translation whose English changed is dropped, never guessed at: a near match would stand there unread.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages import Catalog, Message
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

from pld_app.devstack import paths
from pld_app.devstack.processes import say

LOCALE = paths.ROOT / "locale"
LANGUAGES = ("de",)
_NO_DATE = datetime(2026, 1, 1, tzinfo=UTC)
_PACKAGES = ("pld_app", "rules", "evaluation")
_KEYWORDS = {
    "_": None,
    "_now": None,
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
    "pgettext": ((1, "c"), 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext": ((1, "c"), 2, 3),
}


def catalogue_path(language: str, kind: str = "po") -> Path:
    return LOCALE / language / "LC_MESSAGES" / f"django.{kind}"


def catalogue_read(language: str) -> Catalog:
    """The catalogue of a language as it is committed."""
    with catalogue_path(language).open("rb") as file:
        return read_po(file, locale=language, domain="django")


def catalogue_bytes(catalog: Catalog) -> bytes:
    """The compiled form (.mo) that Django reads."""
    compiled = BytesIO()
    write_mo(compiled, catalog)
    return compiled.getvalue()


def strings_found() -> Catalog:
    """All translatable strings of the source, each with the files it stands in."""
    found = Catalog(domain="django")
    for path, source in _sources():
        name = path.relative_to(paths.ROOT).as_posix()
        for _line, message, _comments, context in extract("python", BytesIO(source.encode()), keywords=_KEYWORDS):
            found.add(message, locations=[(name, 0)], context=context)
    return found


def _sources() -> Iterator[tuple[Path, str]]:
    for package in _PACKAGES:
        for path in sorted((paths.ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path, path.read_text(encoding="utf-8")
    for path in sorted((paths.ROOT / "templates").rglob("*.html")):
        as_code = templatize(path.read_text(encoding="utf-8"), origin=str(path))
        # What is not a string is blotted out with X; its indentation would not parse as Python.
        yield path, "\n".join(line.strip() for line in as_code.splitlines())


def catalogue_merged(language: str, found: Catalog) -> Catalog:
    """The strings found, each with the translation its committed catalogue has for exactly this English."""
    merged = Catalog(
        language,
        domain="django",
        header_comment="# PLD Review. Kept up to date by ./dev messages; docs/language.md has the glossary.",
        project="PLD Review",
        # A catalogue with the time of its making would differ at each run.
        creation_date=_NO_DATE,
        revision_date=_NO_DATE,
        last_translator="PLD Review",
        language_team="PLD Review",
        fuzzy=False,
    )
    former = catalogue_read(language) if catalogue_path(language).exists() else Catalog(language)
    for message in found:
        if message.id:
            known = former.get(message.id, message.context)
            merged.add(
                message.id,
                known.string if known else None,
                message.locations,
                context=message.context,
                flags=message.flags,
            )
    return merged


def untranslated(catalog: Catalog) -> list[str]:
    """The English of every string that has no translation, or not in all its plural forms."""
    return [_english(message) for message in catalog if message.id and not _is_translated(message.string)]


def messages_run() -> int:
    """Bring every catalogue up to date with the source and compile it; say which strings lack a translation."""
    found = strings_found()
    for language in LANGUAGES:
        catalog = catalogue_merged(language, found)
        catalogue_path(language).parent.mkdir(parents=True, exist_ok=True)
        with catalogue_path(language).open("wb") as file:
            write_po(file, catalog, width=110, sort_by_file=True, include_lineno=False)
        catalogue_path(language, "mo").write_bytes(catalogue_bytes(catalog))
        missing = untranslated(catalog)
        say(f"messages: {language}: {len(catalog)} strings, {len(missing)} without a translation")
        for english in missing:
            say(f"  {english!r}")
    return 0


def _english(message: Message) -> str:
    return str(message.id if isinstance(message.id, str) else message.id[0])


def _is_translated(string: str | tuple[str, ...] | list[str] | None) -> bool:
    return all(string) if isinstance(string, tuple | list) else bool(string)
