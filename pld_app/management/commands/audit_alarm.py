"""`manage.py audit_alarm show|clear --reason TEXT`: what to do when log and outside copy disagree, once understood."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pld_app.transparency.sealing import alarm_clear, alarm_open


class Command(BaseCommand):
    help = "Show or clear the alarm that stops sealing and publishing. Clearing is on record."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["show", "clear"])
        parser.add_argument("--reason", default="", help="what was found, and who decided")

    def handle(self, *args: Any, **options: Any) -> None:
        alarm = alarm_open()
        if options["what"] == "clear":
            if alarm is None or not options["reason"].strip():
                raise CommandError("There is no alarm." if alarm is None else "Say with --reason what was found.")
            alarm_clear(options["reason"])
            self.stdout.write("Cleared. The sealer goes on, and releases may be published.")
            return
        self.stdout.write(f"{alarm.at:%Y-%m-%d %H:%M:%S} UTC: {alarm.detail}" if alarm else "No alarm.")
