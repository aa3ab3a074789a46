"""`manage.py demo_seed`: accounts, the sample task mined and half reviewed, and a baseline, for `./dev demo` alone."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from evaluation.management.demo_review import demo_review
from evaluation.models import PromptKind
from evaluation.services.runs import evaluation_run_create
from pld_app.accounts import account_create
from pld_app.audit import audit_record
from pld_app.jobs import job_execute
from pld_app.models import Domain, EndpointKind, Job, ModelEndpoint, Role, User
from rules.models import Split, Task, TraceImport
from rules.schemas import MiningParameters
from rules.services.imports import JOB_KIND as IMPORT_JOB
from rules.services.imports import import_create
from rules.services.mining import JOB_KIND as MINING_JOB
from rules.services.mining import mining_run_create
from rules.services.tasks import task_save

SAMPLE = settings.BASE_DIR / "rules" / "sample"
STUDENT = "demo-student"
STUDENT_MODEL = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class DemoAccount:
    username: str
    name: str
    role: Role
    domain: Domain | None = None


# Three reviewers: where two of them disagree, a third settles it.
# Three signatories: two sign what neither of them composed, and a third publishes it.
ACCOUNTS = (
    DemoAccount("lena", "Lena Legal", Role.REVIEWER, Domain.LEGAL),
    DemoAccount("finn", "Finn Finance", Role.REVIEWER, Domain.FINANCE),
    DemoAccount("theo", "Theo Third", Role.REVIEWER, Domain.LEGAL),
    DemoAccount("sofia", "Sofia Signatory", Role.SIGNATORY),
    DemoAccount("samir", "Samir Signatory", Role.SIGNATORY),
    DemoAccount("petra", "Petra Publisher", Role.SIGNATORY),
    DemoAccount("abel", "Abel Auditor", Role.AUDITOR),
    DemoAccount("ada", "Ada Admin", Role.ADMIN),
)


class Command(BaseCommand):
    help = "Fill an empty database with the demo; run again, it changes nothing but the student's address."

    def handle(self, *args: Any, **options: Any) -> None:
        folder, student_url = os.environ.get("PLD_DEMO_DIR"), os.environ.get("PLD_DEMO_STUDENT_URL")
        if not folder or not student_url:
            raise CommandError(
                "demo_seed belongs to ./dev demo, which says where its secrets live. Start that instead."
            )
        passwords = _passwords(Path(folder) / "accounts.json")
        _accounts_make(passwords)
        admin = User.objects.get(username="ada")
        task = _task_make(admin, _student_make(student_url, admin))
        _work_start(task, admin)
        self.stdout.write("Demo accounts (user name, password, role):")
        for account in ACCOUNTS:
            role = f"{account.role.label}, {account.domain.label}" if account.domain else account.role.label
            self.stdout.write(f"  {account.username:8} {passwords[account.username]:16} {role}")


def _passwords(path: Path) -> dict[str, str]:
    """Random passwords, made once and kept for the owner of the demo alone; a demo begun before gets those it lacks."""
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    lacking = {one.username: secrets.token_urlsafe(9) for one in ACCOUNTS if one.username not in kept}
    if not lacking:
        return kept
    made = kept | lacking
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(made, file)
    fresh.replace(path)
    return made


def _accounts_make(passwords: dict[str, str]) -> None:
    known = set(User.objects.values_list("username", flat=True))
    for account in ACCOUNTS:
        if account.username not in known:
            account_create(
                username=account.username,
                display_name=account.name,
                role=account.role,
                domain=account.domain or "",
                password=passwords[account.username],
            )


@transaction.atomic
def _student_make(base_url: str, admin: User) -> ModelEndpoint:
    """The local student; its port may be another one at the next start."""
    endpoint = ModelEndpoint.objects.filter(slug=STUDENT).first()
    if endpoint is not None and endpoint.base_url == base_url:
        return endpoint
    if endpoint is None:
        endpoint = ModelEndpoint(
            slug=STUDENT,
            name="Local student",
            kind=EndpointKind.CHAT,
            model=STUDENT_MODEL,
            concurrency=2,
            timeout_s=120,
        )
    endpoint.base_url = base_url
    endpoint.save()
    audit_record("endpoint.changed", actor=admin, subject=endpoint, data={"base_url": base_url})
    return endpoint


def _task_make(admin: User, student: ModelEndpoint) -> Task:
    given = json.loads((SAMPLE / "task.json").read_text())
    task = Task.objects.filter(slug=given["slug"]).first()
    if task is not None:
        return task
    return task_save(task=Task(**given, student=student), user=admin, changed=["all"])


def _work_start(task: Task, admin: User) -> None:
    """Import, mine and review at once, so that there is something to see; the baseline waits for the worker."""
    if not TraceImport.objects.filter(task=task).exists():
        sample = ContentFile((SAMPLE / "traces.jsonl").read_bytes(), name="traces.jsonl")
        made = import_create(task=task, upload=sample, file_name="traces.jsonl", user=admin)
        job_execute(job_id=Job.objects.get(kind=IMPORT_JOB, subject_id=made.pk).pk)
    if not task.mining_runs.exists():
        run = mining_run_create(task=task, user=admin, parameters=MiningParameters())
        job_execute(job_id=Job.objects.get(kind=MINING_JOB, subject_id=run.pk).pk)
    demo_review(task, admin)
    if not task.evaluation_runs.exists() and task.student is not None:
        evaluation_run_create(
            task=task, user=admin, kind=PromptKind.ZERO_SHOT, student=task.student, split=Split.VALIDATION
        )
