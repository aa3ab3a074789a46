"""A log with a key and a folder for copies, for tests."""

import threading
from collections.abc import Callable
from pathlib import Path

from django.db import connection, transaction

from pld_app.audit import audit_record
from pld_app.models import AuditEvent, SealedLeaf, User
from pld_app.transparency.copies import FolderSink
from pld_app.transparency.keys import key_create
from pld_app.transparency.rounds import Round, seal_round

ORIGIN = "review.example.org/audit"


class Log:
    """The sealer's side of one test: settings point at its key and its folder."""

    def __init__(self, folder: Path, settings: object) -> None:
        self.key_file, self.copies = folder / "key" / "audit.pem", folder / "copies"
        settings.AUDIT_KEY_FILE = str(self.key_file)  # type: ignore[attr-defined]  # pytest-django's settings
        settings.AUDIT_COPY_DIR = str(self.copies)  # type: ignore[attr-defined]
        settings.AUDIT_COPY_URL = ""  # type: ignore[attr-defined]
        key_create(origin=ORIGIN)

    def seal(self) -> Round:
        return seal_round([FolderSink(self.copies)])

    @staticmethod
    def seal_into(folder: Path) -> Round:
        return seal_round([FolderSink(folder)])

    def newest_copy(self) -> Path:
        return max(self.copies.glob("checkpoint-*.txt"))


def events_make(actor: User, count: int, *, chains: int = 3, data: dict[str, str] | None = None) -> None:
    """Events in one transaction each hundred, on a few chains."""
    for start in range(0, count, 100):
        with transaction.atomic():
            for number in range(start, min(count, start + 100)):
                slug = f"t{number % chains}" if number % chains else ""
                audit_record(
                    "thing.done", actor=actor, subject=actor, task_slug=slug, data={"n": number, **(data or {})}
                )


def all_sealed() -> bool:
    events = list(AuditEvent.objects.order_by("pk").values_list("pk", flat=True))
    return events == list(SealedLeaf.objects.order_by("index").values_list("event_id", flat=True))


def at_once(acts: list[Callable[[], object]], *, timeout_s: float = 60) -> None:
    """Run each on a connection of its own behind one barrier; the first error is raised here."""
    barrier, errors = threading.Barrier(len(acts)), list[BaseException]()

    def run(act: Callable[[], object]) -> None:
        try:
            connection.ensure_connection()
            barrier.wait()
            act()
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=timeout_s)
    if errors:
        raise errors[0]
