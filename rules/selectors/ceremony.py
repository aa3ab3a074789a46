"""What the question of a ceremony is about: object and hash of its content, looked up, never taken from a page."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from django.db import models

from rules.models import (
    EmergencyStop,
    Erasure,
    GatePolicy,
    LegalHold,
    Release,
    RetentionPolicy,
    Ruleset,
    SignOffPolicy,
    Task,
)


@dataclass(frozen=True)
class Subject:
    """`number` is what people call it; `content_sha256` must be what the act's service gives to `reauthenticate`."""

    pk: str
    number: int | None
    content_sha256: str


def _ruleset(pk: int) -> Subject | None:
    found = Ruleset.objects.filter(pk=pk).values_list("number", "manifest_sha256").first()
    return Subject(str(pk), found[0], found[1]) if found else None


def _release(pk: int) -> Subject | None:
    found = Release.objects.filter(pk=pk).values_list("version", "manifest_sha256").first()
    return Subject(str(pk), found[0], found[1]) if found else None


def _bare(model: type[models.Model], pk: int) -> Subject | None:
    """A row that is its own content, or a task as a whole: its key says it all."""
    return Subject(str(pk), None, "") if model._default_manager.filter(pk=pk).exists() else None


# By the model's name, as `reauthenticate` writes it. An act on another kind of object adds its line here.
SUBJECTS: dict[str, Callable[[int], Subject | None]] = {
    "ruleset": _ruleset,
    "release": _release,
    "task": partial(_bare, Task),
    "signoffpolicy": partial(_bare, SignOffPolicy),
    "gatepolicy": partial(_bare, GatePolicy),
    "emergencystop": partial(_bare, EmergencyStop),
    "retentionpolicy": partial(_bare, RetentionPolicy),
    "legalhold": partial(_bare, LegalHold),
    "erasure": partial(_bare, Erasure),
}


def ceremony_subject(subject_type: str, subject_id: str) -> Subject | None:
    """The object, or None for a kind or a number that is none."""
    find = SUBJECTS.get(subject_type)
    if find is None or not subject_id.isascii() or not subject_id.isdigit() or len(subject_id) > 18:
        return None
    return find(int(subject_id))
