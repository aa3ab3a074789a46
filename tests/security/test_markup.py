"""Hostile text in every field that can carry it: every page shows it as text, and no header breaks."""

from collections.abc import Callable
from datetime import date
from html.parser import HTMLParser
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from evaluation.models import Ablation, Dataset, DatasetCheck, EvaluationRun, InputTemplate, PromptKind, RunGroup
from pld_app.audit_reading import query_save
from pld_app.audit_search import AuditSearch
from pld_app.models import AuditEvent, Notification, Role, User
from pld_app.role_grants import role_request
from rules.models import (
    Cluster,
    Conflict,
    ConflictExample,
    ConflictKind,
    Evidence,
    EvidenceRole,
    ImportReject,
    Instruction,
    MicroRule,
    Release,
    Ruleset,
    Suspect,
    Task,
    TraceImport,
)
from rules.schemas import MiningParameters
from rules.selectors.review_filter import ReviewFilter
from rules.services.assignments import absence_set, assignment_set
from rules.services.batches import batch_reject
from rules.services.bundle_requests import bundle_failed, bundle_request
from rules.services.comments import comment_answer, comment_resolve, comment_write
from rules.services.erasing import erasure_request
from rules.services.gates import gates_decide, gates_propose
from rules.services.mining import mining_run_create
from rules.services.oversight import report_make
from rules.services.retention import hold_place, retention_propose
from rules.services.review import instruction_edit, instruction_reject
from rules.services.saved_views import saved_view_save
from rules.services.stopping import stop_make
from rules.services.tags import batch_tag
from rules.services.training import training_grant
from rules.services.webhooks import webhook_create
from rules.services.withdrawing import ruleset_withdraw
from tests.evaluation.loops import answer_all, make_group, make_loop, make_proposal, make_round, propose
from tests.evaluation.scene import finished_directly, make_run, measured_directly
from tests.factories import (
    approve_directly,
    make_call,
    make_change,
    make_endpoint,
    make_evidence,
    make_instruction,
    make_proof,
    make_task,
    make_trace,
)
from tests.governance.authenticator import Authenticator
from tests.publishing import steps
from tests.test_permissions import PATHS, TABLE, Scene

type ClientOf = Callable[[User], Client]
# One text for every context: element, attribute in both quotes, script, comment, template, htmx and URL.
HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(2)><b hx-get=/sign-out/ hx-trigger=load>"
    "--><style>*{display:none}</style>{{ 7|add:7 }}{% debug %}javascript:alert(3)</textarea></title></pre>"
)
SHORT = "\"'><b id=pwned>{{7}}"  # where a column holds less


class Page(HTMLParser):
    """Elements that only the hostile text could have opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        hostile = (
            (tag == "script" and "src" not in values)
            or tag == "style"
            or values.get("id") == "pwned"
            or values.get("src") == "x"
            or values.get("hx-get") == "/sign-out/"
            or any(name.startswith("on") or name == "style" for name in values)
            or any((values.get(name) or "").strip().lower().startswith("javascript:") for name in ("href", "action"))
        )
        if hostile:
            self.found.append(f"<{tag} {values}>")


@pytest.fixture
def hostile(task: Task, ana: User, ben: User, sam: User, sue: User, ada: User) -> dict[str, Any]:
    """The task with hostile text wherever a person, a file or a model can put some."""
    for person in (ana, ben, sam, sue, ada):
        User.objects.filter(pk=person.pk).update(display_name=SHORT)
        person.refresh_from_db()
    labels = [f"Compliant{SHORT}", f"Breach{SHORT}"]
    Task.objects.filter(pk=task.pk).update(
        name=SHORT,
        description=HOSTILE,
        labels=labels,
        input_fields=[SHORT, "question"],
        preamble=HOSTILE,
        output_contract=HOSTILE,
        student=make_endpoint("http://127.0.0.1:9/v1", slug="student", model=SHORT),
    )
    task.refresh_from_db()
    student = task.student
    assert student
    type(student).objects.filter(pk=student.pk).update(name=SHORT, api_key_env=SHORT)
    made = TraceImport.objects.create(
        task=task, file_name=HOSTILE[:200], file_sha256="0" * 64, file_bytes=1, error=HOSTILE, state="failed"
    )
    ImportReject.objects.create(trace_import=made, line=1, reason=SHORT, message=HOSTILE, excerpt=HOSTILE[:200])
    trace = make_trace(
        task,
        external_id=HOSTILE[:200],
        input={SHORT: HOSTILE, "question": HOSTILE},
        label=labels[0],
        rationale=HOSTILE,
        instruction=HOSTILE,
        teacher=SHORT,
        metadata={HOSTILE: HOSTILE, "items": HOSTILE},
        first_import=made,
    )
    run = mining_run_create(task=task, user=ada, parameters=MiningParameters())
    cluster = Cluster.objects.create(run=run, number=1, topic=1, terms=HOSTILE[:200], label=labels[0], size=1)
    MicroRule.objects.create(run=run, trace=trace, origin="failed", text="", error=HOSTILE[:300], cluster=cluster)
    type(run).objects.filter(pk=run.pk).update(state="failed", error=HOSTILE)
    evaluated: EvaluationRun = _evaluated(task, labels)
    values: dict[str, Any] = {
        "label": labels[0],
        "topic": HOSTILE[:200],
        "run": run,
        "cluster": cluster,
        "provenance": {"note": HOSTILE, "items": HOSTILE, "cited": [HOSTILE]},
    }
    card = make_instruction(task, HOSTILE, **values)
    make_evidence(card, trace)
    other = make_trace(task, label=labels[1], input={SHORT: HOSTILE, "question": HOSTILE})
    Evidence.objects.create(instruction=card, trace=other, role=EvidenceRole.CONTRADICTING, rank=1)
    instruction_edit(instruction_id=card.pk, reviewer=ana, version=1, text=f"{HOSTILE} edited", note=HOSTILE)
    rejected = make_instruction(task, HOSTILE, **values)
    instruction_reject(instruction_id=rejected.pk, reviewer=ana, version=1, reason="other", note=HOSTILE)
    first, second = (approve_directly(make_instruction(task, HOSTILE, **values), ben) for _ in range(2))
    conflict = Conflict.objects.create(
        run=run, first=first, second=second, kind=ConflictKind.values[0], strength=0.5, same_pairs=1, opposed_pairs=1
    )
    ConflictExample.objects.create(conflict=conflict, rank=1, first_trace=trace, second_trace=other, similarity=0.5)
    Suspect.objects.create(run=run, rank=1, trace=trace, neighbour=other, others=1, looked_at=2, similarity=0.5)
    make_change(card, HOSTILE)
    call = make_call(student, purpose=SHORT, text=HOSTILE, raw_reply=HOSTILE, error=HOSTILE, model_returned=SHORT)
    release = _released(evaluated, (ana, sam, sue), ada)
    draft = steps.again_draft(task, ana)
    type(draft).objects.filter(pk=draft.pk).update(name=HOSTILE[:120])
    withdrawn = steps.again_frozen(task, ana)
    absence_set(person=ben, by=ben, starts_on=timezone.now().date(), ends_on=timezone.now().date(), deputy=ana)
    assignment_set(instruction_id=card.pk, by=ana, person=ben)
    _commented(card, ana, sam)
    kept = saved_view_save(
        task=task, owner=ana, name=SHORT[:80], audience="team", view=ReviewFilter(text=HOSTILE[:200])
    )
    ruleset_withdraw(ruleset_id=withdrawn.pk, actor=sam, reason=HOSTILE[:300], proof=make_proof(sam))
    stop_make(task=task, actor=sue, reason=HOSTILE[:300], instruction_id=card.pk)
    steps.schedule(release, sam, reason=HOSTILE[:300])
    _kept_by_admins(task, ana, ada)
    for person in (ana, sam, ada):
        Authenticator().enrolled(person, SHORT)
        hostile_parts = {"by": HOSTILE, "what": HOSTILE, "name": HOSTILE, "until": HOSTILE}
        Notification.objects.create(user=person, kind="factor.changed", parts=hostile_parts, mail_error=HOSTILE[:200])
        Notification.objects.create(user=person, kind=SHORT, parts={"x": HOSTILE})
    return {
        "account": role_request(user_id=sue.pk, role=Role.AUDITOR, domain="", reason=SHORT, by=ada).user_id,
        "bundle": _bundle(release.ruleset_id, sam),
        "batch": _batch(make_instruction(task, HOSTILE, **values), card, ana),
        **_audit_objects(ada),
        "saved": kept.slug,
        "call": call.pk,
        "trace": trace.pk,
        "import": made.pk,
        "mining": run.pk,
        "instruction": card.number,
        "rejected": rejected.number,
        "release": release.version,
        "draft": draft.number,
        "withdrawn": withdrawn.number,
        "frozen": release.ruleset.number,
        "evaluation": evaluated.number,
        **_evaluation_objects(evaluated),
        "ablation": _ablation(task, release).number,
        **_loop_objects(task, draft, second),
    }


def _commented(card: Instruction, one: User, other: User) -> None:
    """An open thread on words of the rule, with an answer, and a resolved one."""
    thread = comment_write(instruction_id=card.pk, author=one, body=HOSTILE, quote=HOSTILE)
    comment_answer(comment_id=thread.pk, author=other, body=HOSTILE)
    settled = comment_write(instruction_id=card.pk, author=other, body=HOSTILE)
    comment_resolve(comment_id=settled.pk, actor=one)


def _batch(rejected: Instruction, tagged: Instruction, actor: User) -> int:
    """A bulk decision on one instruction, and a tag on both."""
    batch_tag(task=rejected.task, by=actor, shown={rejected.number: 0, tagged.number: 0}, name=SHORT[:30])
    shown = {rejected.number: rejected.version}
    done = batch_reject(task=rejected.task, actor=actor, shown=shown, reason="other", note=HOSTILE)
    assert done.batch
    return done.batch.pk


def _bundle(ruleset_id: int, by: User) -> int:
    """A request that failed in hostile words."""
    request = bundle_request(ruleset_id=ruleset_id, actor=by)
    bundle_failed(request.pk, HOSTILE)
    return request.pk


def _audit_objects(ada: User) -> dict[str, Any]:
    """An event, a kept search, a hold and an erasure that say hostile things."""
    stop = AuditEvent.objects.filter(action="stop.made").latest("pk")
    search = query_save(owner=ada, name=SHORT, is_shared=True, search=AuditSearch(text=HOSTILE[:200]))
    retention_propose(task=None, months=90, reason=HOSTILE[:300], actor=ada)
    erasure = erasure_request(kind="event", numbers=[stop.pk], reason=HOSTILE[:300], actor=ada)
    hold_place(actor=ada, scope="object", object_type=SHORT[:40], object_id=SHORT[:40], reason=HOSTILE[:300])
    return {"event": stop.pk, "search": search.slug, "erasure": erasure.pk}


def _released(run: EvaluationRun, people: tuple[User, User, User], admin: User) -> Release:
    """A release in production, and gates that came after it; before anybody has a second factor."""
    release = steps.in_production(run.task, *people)
    _gates(run.task, run.dataset.sha256, admin, people[1])
    return release


def _gates(task: Task, dataset_sha256: str, ada: User, sam: User) -> None:
    """Gates in force that say hostile things, and a proposal of others."""
    points: dict[str, Any] = {"student": task.student, "dataset_sha256": dataset_sha256, "split": "validation"}
    points |= {"label_floors": {task.labels[0]: "0.5"}, "reason": HOSTILE[:300]}
    policy = gates_propose(task=task, actor=ada, proof=make_proof(ada), **points)
    gates_decide(policy_id=policy.pk, actor=sam, verdict="confirmed", proof=make_proof(sam))
    gates_propose(task=task, actor=ada, proof=make_proof(ada), max_prompt_tokens=9, **points)


def _kept_by_admins(task: Task, reviewer: User, admin: User) -> None:
    """A webhook, a month's report and a training record."""
    address = "https://student.example/" + SHORT
    webhook_create(task=task, name=SHORT, url=address, secret_env="PLD_WEBHOOK_X", actor=admin)
    report_make(task_id=task.pk, month=date(2026, 3, 1))
    training_grant(person=reviewer, domain="legal", expires_on=date(2099, 1, 1), note=HOSTILE[:300], admin=admin)


def _loop_objects(task: Task, draft: Ruleset, instruction: Instruction) -> dict[str, int]:
    """A loop that waits for people, whose examples, reasons and proposals say hostile things."""
    run = make_run(task, seed=1)
    answer_all(run)
    round_ = make_round(make_loop(run, draft, error=HOSTILE), run, instruction)
    group = make_group(round_, instruction)
    flags = [{"kind": "injection", "text": HOSTILE, "where": HOSTILE, "is_hint": False}]
    proposal = make_proposal(instruction, f"{HOSTILE} proposed", reason=HOSTILE, resolver=SHORT, flags=flags)
    propose(group, proposal, note=HOSTILE)
    return {"loop": round_.loop.number, "group": group.pk, "proposed": instruction.number}


def _evaluation_objects(run: EvaluationRun) -> dict[str, int]:
    """A dataset, a refused one, a check, a template and a comparison that say hostile things."""
    named = {"task": run.task, "source": "file", "file_name": HOSTILE[:200]}
    refused = Dataset.objects.create(number=70, name=HOSTILE[:120], **named)
    problems = [{"line": 1, "reason": HOSTILE, "message": HOSTILE}]
    Dataset.objects.filter(pk=refused.pk).update(state="refused", problems=problems)
    DatasetCheck.objects.create(
        dataset=run.dataset, compared=2, of=2, found=1, pairs=[[HOSTILE, "test", HOSTILE, "train", 0.95]]
    )
    InputTemplate.objects.create(task=run.task, version=1, text=HOSTILE, abstention_label=SHORT)
    group = RunGroup.objects.create(task=run.task, number=1, dataset=run.dataset, split="validation")
    return {"dataset": run.dataset.number, "refused": refused.number, "comparison": group.number}


def _ablation(task: Task, release: Release) -> Ablation:
    """One of the hostile release's instructions, over the hostile example, with hostile words of why it paused."""
    ablation = measured_directly(finished_directly(make_run(task, kind=PromptKind.RELEASE, release=release)))
    Ablation.objects.filter(pk=ablation.pk).update(error=HOSTILE)
    return ablation


def _evaluated(task: Task, labels: list[str]) -> EvaluationRun:
    make_trace(task, split="validation", label=labels[0], input={SHORT: HOSTILE, "question": HOSTILE})
    run: EvaluationRun = make_run(task)
    EvaluationRun.objects.filter(pk=run.pk).update(error=HOSTILE)
    return run


PAGES = [
    "/",
    "/accounts/",
    "/accounts/{account}/role/",
    "/accounts/review/",
    "/endpoints/",
    "/endpoints/student/",
    "/audit/",
    "/audit/log/",
    "/audit/{event}/",
    "/audit/searches/{search}/",
    "/retention/",
    "/retention/erasures/new/",
    "/retention/erasures/{erasure}/",
    "/password/",
    "/security/",
    "/inbox/",
    "/health/",
    "/ledger/",
    "/ledger/{call}/",
    "/tasks/nda/",
    "/tasks/nda/settings/",
    "/tasks/nda/imports/",
    "/tasks/nda/imports/new/",
    "/tasks/nda/imports/{import}/",
    "/tasks/nda/traces/",
    "/tasks/nda/traces/{trace}/",
    "/tasks/nda/mining/",
    "/tasks/nda/mining/new/",
    "/tasks/nda/mining/{mining}/",
    "/tasks/nda/mining/{mining}/map/",
    "/tasks/nda/mining/{mining}/changes/",
    "/tasks/nda/mining/{mining}/suspects/",
    "/tasks/nda/review/conflicts/",
    "/tasks/nda/review/policy/",
    "/tasks/nda/review/quality/",
    "/tasks/nda/review/oversight/",
    "/tasks/nda/review/oversight/2026-03/",
    "/training/",
    "/tasks/nda/review/session/",
    "/tasks/nda/review/seeds/",
    "/tasks/nda/review/",
    "/tasks/nda/review/?tab=all&domain=all",
    "/tasks/nda/review/batches/",
    "/tasks/nda/review/batches/{batch}/",
    "/tasks/nda/review/{instruction}/",
    "/tasks/nda/review/{instruction}/assignment/",
    "/tasks/nda/review/views/{saved}/",
    "/preferences/",
    "/absences/",
    "/tasks/nda/review/{rejected}/",
    "/tasks/nda/review/{instruction}/traces/",
    "/tasks/nda/review/{instruction}/opinions/",
    "/tasks/nda/review/{instruction}/comments/",
    "/tasks/nda/comments/",
    "/tasks/nda/comments/?tab=resolved",
    "/tasks/nda/rulesets/",
    "/tasks/nda/rulesets/compare/?old={frozen}&new={draft}",
    "/tasks/nda/rulesets/compare/?old={frozen}&new={draft}&view=side",
    "/tasks/nda/rulesets/new/",
    "/tasks/nda/rulesets/{draft}/",
    "/tasks/nda/rulesets/{withdrawn}/",
    "/tasks/nda/rulesets/{frozen}/",
    "/tasks/nda/rulesets/{frozen}/bundles/",
    "/tasks/nda/rulesets/{frozen}/bundles/{bundle}/",
    "/tasks/nda/releases/",
    "/tasks/nda/releases/{release}/",
    "/tasks/nda/policy/",
    "/tasks/nda/gates/",
    "/tasks/nda/control/",
    "/tasks/nda/webhooks/",
    "/tasks/nda/served/?channel=production&at=2026-11-30T09:00",
    "/tasks/nda/tokens/",
    "/tasks/nda/evaluation/",
    "/tasks/nda/evaluation/new/",
    "/tasks/nda/evaluation/{evaluation}/",
    "/tasks/nda/evaluation/compare/?run={evaluation}",
    "/tasks/nda/evaluation/comparisons/",
    "/tasks/nda/evaluation/comparisons/new/",
    "/tasks/nda/evaluation/comparisons/{comparison}/",
    "/tasks/nda/evaluation/releases/",
    "/tasks/nda/evaluation/drift/",
    "/tasks/nda/evaluation/datasets/",
    "/tasks/nda/evaluation/datasets/new/",
    "/tasks/nda/evaluation/datasets/{dataset}/",
    "/tasks/nda/evaluation/datasets/{refused}/",
    "/tasks/nda/evaluation/ablations/",
    "/tasks/nda/evaluation/ablations/new/",
    "/tasks/nda/evaluation/ablations/{ablation}/",
    "/tasks/nda/evaluation/loops/",
    "/tasks/nda/evaluation/loops/new/",
    "/tasks/nda/evaluation/loops/{loop}/",
    "/tasks/nda/evaluation/loops/{loop}/groups/{group}/",
    "/tasks/nda/review/{proposed}/?cases=1",
    "/tasks/nda/evaluation/template/",
]


def test_hostile_text_is_text_on_every_page(
    hostile: dict[str, Any], ana: User, sam: User, abe: User, ada: User, client_of: ClientOf
) -> None:
    seen = 0
    for person in (ana, sam, abe, ada):
        browser = client_of(person)
        for path in PAGES:
            for headers in ({}, {"HX-Request": "true"}):
                response = browser.get(path.format(**hostile), headers=headers)
                if response.status_code == 403:
                    continue
                assert response.status_code == 200, path
                page = response.content.decode()
                assert Page(page).found == [], (path, person.role)
                assert "pwned>14" not in page
                seen += "pwned" in page or "alert(1)" in page
    assert seen > 2 * len(PAGES), "the text did not arrive: this test would see nothing"


def test_hostile_queries_come_back_as_text(scene: Scene) -> None:
    names = "q text topic label object action page next gold prompt run against kind purpose outcome"
    query = dict.fromkeys(names.split(), HOSTILE)
    for name in (name for name, row in TABLE.items() if "GET" in row):
        for who in sorted(TABLE[name]["GET"]):
            response: Any = scene.clients[who].get(scene.url(name), query)
            assert response.status_code < 500
            if response.headers.get("Content-Type", "").startswith("text/html"):
                assert Page(response.content.decode()).found == [], (name, who)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/tasks/nda/review/1/approve/", {"version": "99", "note": HOSTILE}),
        ("/tasks/nda/review/1/edit/", {"version": "1", "text": f"{HOSTILE}\u202e", "note": HOSTILE}),
        ("/tasks/nda/review/1/edit/", {"version": "99", "text": HOSTILE, "note": HOSTILE}),
        ("/tasks/nda/review/1/reject/", {"version": "1", "reason": HOSTILE, "note": HOSTILE}),
        ("/tasks/nda/review/1/send-back/", {"version": "99", "reason": "other", "note": HOSTILE}),
        ("/tasks/nda/rulesets/new/", {"name": HOSTILE * 9, "start": HOSTILE}),
        ("/tasks/nda/review/1/comments/new/", {"body": f"{HOSTILE} @nobody", "quote": HOSTILE}),
        ("/audit/", {"text": HOSTILE, "note": HOSTILE, "reason": HOSTILE}),
    ],
)
@pytest.mark.parametrize("htmx", [True, False])
def test_what_was_typed_comes_back_as_text(
    task: Task, ana: User, client_of: ClientOf, path: str, fields: dict[str, str], htmx: bool
) -> None:
    make_instruction(task)
    steps.approved(task, ana, 1)
    response = client_of(ana).post(path, fields, headers={"HX-Request": "true"} if htmx else {})
    assert 400 <= response.status_code < 500
    page = response.content.decode()
    assert Page(page).found == []
    assert "alert(1)" in page


@pytest.mark.parametrize(
    "name",
    [
        '"><script>.jsonl',
        "../../etc/passwd",
        "a\r\nX-Injected: 1.csv",
        "\u202egpj.csv",
        "a;b=c.csv",
        "x" * 300,
        ".",
        "..",
    ],
)
def test_a_file_name_is_only_a_label(task: Task, ada: User, client_of: ClientOf, name: str, settings: Any) -> None:
    browser = client_of(ada)
    upload = SimpleUploadedFile("plain.jsonl", b"{}\n")
    upload._name = name  # type: ignore[attr-defined]  # as a client sends it, past the class that cleans it
    response = browser.post("/tasks/nda/imports/new/", {"file": upload})
    if response.status_code == 422:
        assert name in {".", ".."}
        return
    made = TraceImport.objects.get()
    assert made.file.path.startswith(str(settings.MEDIA_ROOT))
    assert name[:20] not in str(made.file.name)
    page = browser.get(f"/tasks/nda/imports/{made.pk}/")
    assert Page(page.content.decode()).found == []
    rejects: Any = browser.get(f"/tasks/nda/imports/{made.pk}/rejects.csv")
    assert rejects.headers["Content-Disposition"] == f'attachment; filename="rejects-{made.pk}.csv"'


def test_downloads_are_named_by_us_and_never_shown_as_pages(
    hostile: dict[str, Any], abe: User, client_of: ClientOf
) -> None:
    browser = client_of(abe)
    for path in (
        "/audit/export.csv",
        "/audit/export.json",
        "/tasks/nda/imports/{import}/rejects.csv",
        "/tasks/nda/review/quality.csv",
        "/tasks/nda/review/oversight/2026-03.csv",
        "/tasks/nda/rulesets/{frozen}/export.json",
        "/tasks/nda/rulesets/{frozen}/export.csv",
        "/tasks/nda/rulesets/{frozen}/export.txt",
        "/tasks/nda/releases/{release}/download.manifest.json",
        "/tasks/nda/rulesets/compare/{frozen}/v{release}.json",
        "/tasks/nda/evaluation/{evaluation}/export.csv",
        "/tasks/nda/evaluation/{evaluation}/export.json",
        "/tasks/nda/evaluation/{evaluation}/export.yaml",
        "/tasks/nda/evaluation/ablations/{ablation}/export.csv",
        "/tasks/nda/evaluation/ablations/{ablation}/export.json",
    ):
        response: Any = browser.get(path.format(**hostile))
        assert response.status_code == 200, path
        assert response.headers["Content-Disposition"].startswith('attachment; filename="')
        assert "pwned" not in response.headers["Content-Disposition"]
        assert not response.headers["Content-Type"].startswith("text/html")


def test_other_tasks_and_roles_see_hostile_audit_rows_as_text(abe: User, ada: User, client_of: ClientOf) -> None:
    make_task("other")
    AuditEvent.objects.create(
        actor=ada,
        actor_name=SHORT,
        actor_role=Role.ADMIN,
        action=SHORT,
        object_type=SHORT,
        object_id=SHORT,
        object_label=HOSTILE[:200],
        task_slug=SHORT,
        data={HOSTILE: HOSTILE, "items": [HOSTILE]},
        request_id=SHORT,
    )
    page = client_of(abe).get("/audit/").content.decode()
    assert "alert(1)" in page
    assert Page(page).found == []


def test_the_list_of_pages_misses_none() -> None:
    """A page added to the product belongs in PAGES."""
    known = {path.split("?")[0] for path in PAGES}
    skipped = {"healthz", "sign-in/", "accounts/new/", "endpoints/new/", "tasks/new/"}
    # Seen before signing in, or only while an authenticator app is added: nobody else's text is on them.
    skipped |= {"sign-in/second/", "sign-in/sso/callback/", "security/app/", "security/app/code.svg"}
    missing = []
    for name, path in PATHS.items():
        if "GET" not in TABLE[name] or path in skipped or path.startswith("api/") or "<str:" in path:
            continue
        shape = "/" + path.replace("<slug:slug>", "nda").replace("<slug:endpoint>", "student")
        if not any(_same_shape(shape, one) for one in known) and not path.endswith((".csv", ".json", ".txt", ".zip")):
            missing.append(path)
    assert missing == []


def _same_shape(path: str, known: str) -> bool:
    parts, other = path.split("/"), known.split("/")
    return len(parts) == len(other) and all(
        a == b or (a[:1] == "<" and b[:1] == "{") for a, b in zip(parts, other, strict=True)
    )
