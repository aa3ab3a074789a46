"""What `./dev demo` finds begun: decided by the real services, once, with figures that the quality page works out."""

from pathlib import Path

import pytest

from evaluation.management.commands.demo_seed import ACCOUNTS, _accounts_make, _passwords, _student_make, _task_make
from evaluation.management.commands.demo_seed import _work_start as work_start
from pld_app.models import AuditEvent, User
from rules.models import Decision, DecisionKind, Instruction, JudgementContext, ReviewPause, Seed, SeedAnswer, Task
from rules.selectors.quality import disagreements_of, facts_of, quality_of_person, quality_of_task
from rules.selectors.review_progress import progress_of


@pytest.mark.django_db
def test_the_demo_opens_on_a_review_half_way_and_a_second_start_changes_nothing(tmp_path: Path) -> None:
    _accounts_make(_passwords(tmp_path / "accounts.json"))
    assert {one.username for one in ACCOUNTS} >= {"lena", "finn", "theo", "ada"}
    ada = User.objects.get(username="ada")
    task: Task = _task_make(ada, _student_make("http://127.0.0.1:9/v1", ada))
    work_start(task, ada)
    kinds = set(Decision.objects.filter(instruction__task=task).values_list("kind", flat=True))
    assert kinds >= {DecisionKind.APPROVE, DecisionKind.REJECT, DecisionKind.DEFER, DecisionKind.SEND_BACK}
    waiting = list(Instruction.objects.filter(task=task).exclude(waiting="").values_list("waiting", flat=True))
    assert waiting.count("disputed") == 1
    assert waiting.count("deferred") == 1
    assert waiting.count("sent_back") == 1
    assert Seed.objects.filter(instruction__task=task).count() >= 4
    facts = facts_of(task)
    overall = quality_of_task(facts)
    assert overall.agreement.raw.is_known
    assert overall.overturned.n > 0
    assert len(disagreements_of(facts)) == 2
    lena, finn = (quality_of_person(facts, User.objects.get(username=name)) for name in ("lena", "finn"))
    assert finn.seeds_caught.value == 1.0
    assert lena.seeds_caught.n + lena.good_kept.n == SeedAnswer.objects.filter(user__username="lena").count()
    assert SeedAnswer.objects.filter(user__username="lena", is_right=False).count() == 1
    # Nobody opened a card, so no time is known, and none is made up.
    assert overall.pace.n == 0
    assert not ReviewPause.objects.exists()
    left = {part.key: part.count for part in progress_of(task, ada)}
    assert left["proposed"] >= 10, left
    before = JudgementContext.objects.count(), AuditEvent.objects.count(), Instruction.objects.count()
    work_start(task, ada)
    assert (JudgementContext.objects.count(), AuditEvent.objects.count(), Instruction.objects.count()) == before
