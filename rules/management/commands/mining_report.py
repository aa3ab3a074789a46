"""`manage.py mining_report RUN [--json]`: the figures of a finished mining run."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from rules.models import MiningRun
from rules.selectors.mining import mining_report


class Command(BaseCommand):
    help = "Print a mining run's figures: clusters, coverage, biggest topic, agreement with a yardstick, seconds."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", help="the run's id, or TASK/NUMBER")
        parser.add_argument("--json", action="store_true", help="as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        report = mining_report(_find(options["run"]))
        if options["json"]:
            self.stdout.write(json.dumps(report, sort_keys=True))
            return
        for name, value in _flat(report):
            self.stdout.write(f"{name:36} {value}")


def _flat(report: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """One line a figure; those of the other strategy as `comparison.NAME`."""
    for name, value in report.items():
        if name == "comparison" and isinstance(value, dict):
            yield from ((f"{name}.{inner}", figure) for inner, figure in value.items())
        else:
            yield name, value


def _find(name: str) -> MiningRun:
    runs = MiningRun.objects.select_related("task", "teacher", "second_teacher", "embedder")
    slug, _, number = name.partition("/")
    wanted = runs.filter(task__slug=slug, number=number) if number.isdigit() else runs.filter(pk=int(slug or 0))
    run = wanted.first()
    if run is None:
        raise CommandError(f"There is no mining run {name}. Give its id, or TASK/NUMBER.")
    return run
