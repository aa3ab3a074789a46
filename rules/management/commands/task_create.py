"""`manage.py task_create FILE`: make the task a JSON file describes (see rules/sample/task.json), once."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from rules.models import Task
from rules.services.tasks import task_save

REQUIRED = ("slug", "name", "labels", "input_fields", "preamble", "output_contract")
OPTIONAL = ("description", "domain_field", "signers_required", "signer_roles", "publisher_may_have_signed")


class Command(BaseCommand):
    help = "Make the task that a JSON file describes. A task of that slug is left as it is, and differences are named."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *_args: Any, **options: Any) -> None:
        given = _task_fields(options["file"])
        present = Task.objects.filter(slug=given["slug"]).first()
        if present is not None:
            differing = [name for name, value in given.items() if getattr(present, name) != value]
            self.stdout.write(f"Task {present.slug} is there already; nothing was changed.")
            if differing:
                self.stderr.write(f"The file says otherwise for: {', '.join(differing)}. Change it in the settings.")
            return
        try:
            task = task_save(task=Task(**given), user=None, changed=list(given))
        except ValidationError as error:
            raise CommandError(f"This is no valid task: {'; '.join(_messages(error))}") from error
        self.stdout.write(f"Made the task {task.slug}.")


def _task_fields(path: Path) -> dict[str, Any]:
    """The fields the file gives, of the right kinds. Raises CommandError."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CommandError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(given, dict):
        raise CommandError(f"{path} holds no JSON object.")
    missing = [name for name in REQUIRED if name not in given]
    unknown = sorted(set(given) - {*REQUIRED, *OPTIONAL})
    if missing or unknown:
        words = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"does not know {', '.join(unknown)}"] * bool(
            unknown
        )
        raise CommandError(f"{path}: a task {' and '.join(words)}.")
    for name in ("labels", "input_fields"):
        _check_names(name, given[name])
    return given


def _check_names(name: str, value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
        raise CommandError(f"{name} must be a list of names.")
    if len(set(value)) != len(value):
        raise CommandError(f"{name} holds a name twice.")


def _messages(error: ValidationError) -> list[str]:
    if hasattr(error, "error_dict"):
        return [f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items()]
    return list(error.messages)
