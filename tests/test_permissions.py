"""Who may do what, on every URL and method the resolver knows: a URL without a row in TABLE fails here.

One line a URL: its name, then the roles each method is for. Everything not named is refused: strangers are sent to the
sign-in page, other roles get 403, other methods 405, and nothing is written.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from html.parser import HTMLParser
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from evaluation.models import EvaluationRun, PromptKind, RunGroup
from pld_app.audit_reading import query_save
from pld_app.audit_search import AuditSearch
from pld_app.factors import totp_begin
from pld_app.models import AuditEvent, AuditKey, Checkpoint, Domain, Role, User
from pld_app.role_grants import role_request
from pld_app.views.security import UNLOCKED
from rules.models import Instruction, PauseReason, Ruleset, SeedKind, Task, TraceImport
from rules.schemas import MiningParameters
from rules.selectors.review_filter import ReviewFilter
from rules.services.attention import pause_open
from rules.services.batches import batch_defer
from rules.services.bundle_requests import bundle_request
from rules.services.comments import comment_write
from rules.services.erasing import erasure_request
from rules.services.gates import gates_propose
from rules.services.mining import mining_run_create
from rules.services.oversight import report_make
from rules.services.retention import hold_place, retention_propose
from rules.services.saved_views import saved_view_save
from rules.services.seeds import seed_make
from rules.services.stopping import stop_make
from rules.services.tokens import token_create
from rules.services.training import training_grant
from rules.services.webhooks import webhook_create
from tests.evaluation.loops import answer_all, make_group, make_loop, make_proposal, make_round, propose
from tests.evaluation.scene import finished_directly, make_run, measured_directly
from tests.factories import (
    make_call,
    make_change,
    make_endpoint,
    make_evidence,
    make_instruction,
    make_proof,
    make_trace,
    make_user,
    now,
)
from tests.publishing import steps

STRANGER = "stranger"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
type Who = frozenset[str]

ALL: Who = frozenset(Role.values)
ANYONE: Who = ALL | {STRANGER}
REVIEWER: Who = frozenset({Role.REVIEWER})
SIGNATORY: Who = frozenset({Role.SIGNATORY})
ADMIN: Who = frozenset({Role.ADMIN})
WATCHERS: Who = frozenset({Role.ADMIN, Role.AUDITOR})
SIGNERS: Who = REVIEWER | SIGNATORY
ASSIGNERS: Who = REVIEWER | ADMIN
OVERSEERS: Who = REVIEWER | WATCHERS
KEEPERS: Who = SIGNERS | ADMIN
EXPORTERS: Who = SIGNERS | {Role.AUDITOR}

TABLE: dict[str, Mapping[str, Who]] = {
    "healthz": {"GET": ANYONE},
    "system-health": {"GET": WATCHERS},
    # Who is signed in is sent to the start page by any method.
    "login": {"GET": ANYONE, "POST": ANYONE, "PUT": ANYONE, "PATCH": ALL, "DELETE": ALL},
    "login-second": {"GET": ANYONE, "POST": ANYONE},
    "sso-start": {"POST": ANYONE},
    "sso-callback": {"GET": ANYONE},
    "logout": {"POST": ANYONE},
    "security": {"GET": ALL},
    "security-unlock": {"POST": ALL},
    "security-app": {"GET": ALL, "POST": ALL},
    "security-app-begin": {"POST": ALL},
    "security-app-qr": {"GET": ALL},
    "security-app-remove": {"POST": ALL},
    "security-recovery-codes": {"POST": ALL},
    "security-passkey-add": {"POST": ALL},
    "security-passkey-options": {"POST": ALL},
    "security-passkey-rename": {"POST": ALL},
    "security-passkey-remove": {"POST": ALL},
    "security-sessions-end": {"POST": ALL},
    "inbox": {"GET": ALL},
    "inbox-read-all": {"POST": ALL},
    "inbox-choices": {"POST": ALL},
    "inbox-open": {"POST": ALL},
    "ceremony-passkey": {"POST": SIGNERS | ADMIN},
    "ceremony-sso": {"POST": SIGNERS | ADMIN},
    "set-language": {"POST": ANYONE},
    "audit": {"GET": WATCHERS},
    "audit-export": {"GET": WATCHERS},
    "audit-event": {"GET": WATCHERS},
    "audit-event-proof": {"GET": WATCHERS},
    "audit-log": {"GET": WATCHERS},
    "audit-log-check": {"POST": WATCHERS},
    "audit-checkpoint": {"GET": WATCHERS},
    "audit-query": {"GET": WATCHERS},
    "audit-query-new": {"POST": WATCHERS},
    "audit-query-delete": {"POST": WATCHERS},
    "accounts": {"GET": WATCHERS},
    "account-review": {"GET": WATCHERS},
    "account-review-export": {"GET": WATCHERS},
    "account-password": {"GET": ALL, "POST": ALL},
    "account-new": {"GET": ADMIN, "POST": ADMIN},
    "account-deactivate": {"POST": ADMIN},
    "account-role": {"GET": ADMIN, "POST": ADMIN},
    "role-confirm": {"POST": ADMIN},
    "role-override": {"POST": ADMIN},
    "role-refuse": {"POST": ADMIN},
    "account-factors-reset": {"POST": ADMIN},
    "account-policy": {"POST": ADMIN},
    "endpoints": {"GET": WATCHERS},
    "ledger": {"GET": WATCHERS},
    "ledger-call": {"GET": WATCHERS},
    "endpoint-new": {"GET": ADMIN, "POST": ADMIN},
    "endpoint-edit": {"GET": ADMIN, "POST": ADMIN},
    # The student's API knows tokens only: no session opens it.
    "api-prompt": {},
    "api:prompt": {},
    "api:api-root": {},
    "api-evaluation:reevaluations": {},
    "api-evaluation:reevaluation": {},
    "api-evaluation:api-root": {},
    "api-evaluation:openapi-json": dict.fromkeys(METHODS, ANYONE),
    "api:openapi-json": dict.fromkeys(METHODS, ANYONE),
    "retention": {"GET": WATCHERS | SIGNATORY},
    "retention-propose": {"POST": ADMIN},
    "retention-confirm": {"POST": ADMIN | SIGNATORY},
    "retention-refuse": {"POST": ADMIN | SIGNATORY},
    "retention-hold-new": {"POST": ADMIN},
    "retention-hold-release": {"POST": ADMIN | SIGNATORY},
    "retention-erasure-new": {"GET": ADMIN, "POST": ADMIN},
    "retention-erasure": {"GET": WATCHERS | SIGNATORY},
    "retention-erasure-confirm": {"POST": ADMIN | SIGNATORY},
    "retention-erasure-refuse": {"POST": ADMIN | SIGNATORY},
    "home": {"GET": ALL},
    "task-new": {"GET": ADMIN, "POST": ADMIN},
    "task": {"GET": ALL},
    "task-edit": {"GET": ADMIN, "POST": ADMIN},
    "imports": {"GET": ALL},
    "import-new": {"GET": ADMIN, "POST": ADMIN},
    "import-detail": {"GET": ALL},
    "import-rejects": {"GET": ALL},
    "traces": {"GET": ALL},
    "trace-detail": {"GET": ALL},
    "mining-list": {"GET": ALL},
    "mining-new": {"GET": ADMIN, "POST": ADMIN},
    "mining-detail": {"GET": ALL},
    "mining-map": {"GET": ALL},
    "mining-release": {"POST": ADMIN},
    "mining-cancel": {"POST": ADMIN},
    "mining-changes": {"GET": ALL},
    "mining-suspects": {"GET": WATCHERS},
    "conflict-list": {"GET": ALL},
    "review-queue": {"GET": ALL},
    "review-next": {"POST": REVIEWER},
    "review-bulk": {"POST": ASSIGNERS},
    "review-tag": {"POST": ASSIGNERS},
    "review-pair-keep": {"POST": REVIEWER},
    "batch-list": {"GET": ALL},
    "batch-detail": {"GET": ALL},
    "batch-undo": {"POST": REVIEWER},
    "assignment": {"GET": ASSIGNERS, "POST": ASSIGNERS},
    "absences": {"GET": ASSIGNERS, "POST": ASSIGNERS},
    "absence-end": {"POST": ASSIGNERS},
    "saved-view": {"GET": ALL},
    "saved-view-new": {"POST": KEEPERS},
    "saved-view-delete": {"POST": KEEPERS},
    "preferences": {"GET": ALL, "POST": ALL},
    "review-ping": {"POST": REVIEWER},
    "review-release": {"POST": REVIEWER},
    "review-take-over": {"POST": REVIEWER},
    "review-draft": {"POST": REVIEWER},
    "review-draft-discard": {"POST": REVIEWER},
    "instruction-detail": {"GET": ALL},
    "instruction-traces": {"GET": ALL},
    "instruction-approve": {"POST": REVIEWER},
    "instruction-edit": {"POST": REVIEWER},
    "instruction-reject": {"POST": REVIEWER},
    "instruction-defer": {"POST": REVIEWER},
    "instruction-send-back": {"POST": REVIEWER},
    "instruction-reopen": {"POST": REVIEWER},
    "instruction-undo": {"POST": REVIEWER},
    "instruction-change-dismiss": {"POST": REVIEWER},
    "instruction-proposal-dismiss": {"POST": REVIEWER},
    "ruleset-list": {"GET": ALL},
    "ruleset-compare": {"GET": ALL},
    "ruleset-compare-export": {"GET": EXPORTERS},
    "ruleset-new": {"GET": REVIEWER, "POST": REVIEWER},
    "ruleset-detail": {"GET": ALL},
    "ruleset-item-add": {"POST": REVIEWER},
    "ruleset-item-move": {"POST": REVIEWER},
    "ruleset-item-remove": {"POST": REVIEWER},
    "ruleset-refresh": {"POST": REVIEWER},
    "ruleset-freeze": {"POST": REVIEWER},
    "ruleset-rule-read": {"POST": SIGNERS},
    "ruleset-sign": {"POST": SIGNERS},
    "ruleset-withdraw": {"POST": SIGNERS},
    "ruleset-release": {"POST": SIGNATORY},
    "ruleset-export": {"GET": EXPORTERS},
    "bundles": {"GET": ALL},
    "bundle-request": {"POST": ALL},
    "bundle-detail": {"GET": ALL},
    "bundle-download": {"GET": ALL},
    "releases": {"GET": ALL},
    "release-publish": {"POST": SIGNATORY},
    "release-rollback": {"POST": SIGNATORY},
    "release-detail": {"GET": ALL},
    "release-download": {"GET": EXPORTERS},
    "control": {"GET": ALL},
    "control-stop": {"POST": ADMIN | SIGNATORY},
    "control-stop-confirm": {"POST": SIGNATORY},
    "control-stop-lift": {"POST": SIGNATORY},
    "control-schedule": {"POST": SIGNATORY},
    "control-schedule-cancel": {"POST": SIGNATORY},
    "webhooks": {"GET": WATCHERS},
    "webhook-new": {"POST": ADMIN},
    "webhook-retire": {"POST": ADMIN},
    "served": {"GET": ALL},
    "gates": {"GET": ALL},
    "gates-propose": {"POST": ADMIN},
    "gates-confirm": {"POST": ADMIN | SIGNATORY},
    "gates-refuse": {"POST": ADMIN | SIGNATORY},
    "gates-exception": {"POST": SIGNATORY},
    "policy": {"GET": ALL},
    "policy-propose": {"POST": ADMIN},
    "policy-confirm": {"POST": ADMIN | SIGNATORY},
    "policy-refuse": {"POST": ADMIN | SIGNATORY},
    "tokens": {"GET": WATCHERS},
    "token-new": {"POST": ADMIN},
    "token-revoke": {"POST": ADMIN},
    "bias-notice": {"POST": REVIEWER},
    "oversight": {"GET": OVERSEERS},
    "oversight-report": {"GET": OVERSEERS},
    "oversight-export": {"GET": OVERSEERS},
    "training": {"GET": OVERSEERS},
    "training-grant": {"POST": ADMIN},
    "training-end": {"POST": ADMIN},
    "review-policy": {"GET": ALL},
    "review-policy-change": {"POST": ADMIN},
    "review-quality": {"GET": ALL},
    "review-quality-export": {"GET": ALL},
    "review-session": {"GET": REVIEWER, "POST": REVIEWER},
    "review-seeds": {"GET": WATCHERS},
    "seeds-make": {"POST": ADMIN},
    "seed-retire": {"POST": ADMIN},
    "review-pause-lift": {"POST": ADMIN},
    "instruction-insight": {"POST": REVIEWER},
    "instruction-evidence": {"POST": REVIEWER},
    "instruction-visible": {"POST": REVIEWER},
    "instruction-opinions": {"GET": ALL},
    "comments": {"GET": ALL},
    "instruction-comments": {"GET": ALL},
    "comment-new": {"POST": KEEPERS},
    "comment-answer": {"POST": KEEPERS},
    "comment-change": {"POST": KEEPERS},
    "comment-resolve": {"POST": KEEPERS},
    "comment-reopen": {"POST": KEEPERS},
    "evaluation-list": {"GET": ALL},
    "evaluation-new": {"GET": ADMIN, "POST": ADMIN},
    "evaluation-compare": {"GET": ALL},
    "evaluation-detail": {"GET": ALL},
    "evaluation-cancel": {"POST": ADMIN},
    "evaluation-rerun": {"POST": ADMIN},
    "evaluation-export": {"GET": ALL},
    "evaluation-groups": {"GET": ALL},
    "evaluation-group-new": {"GET": ADMIN, "POST": ADMIN},
    "evaluation-group": {"GET": ALL},
    "evaluation-releases": {"GET": ALL},
    "evaluation-ablations": {"GET": ALL},
    "evaluation-ablation-new": {"GET": ADMIN, "POST": ADMIN},
    "evaluation-ablation": {"GET": ALL},
    "evaluation-ablation-cancel": {"POST": ADMIN},
    "evaluation-ablation-raise": {"POST": ADMIN},
    "evaluation-ablation-export": {"GET": ALL},
    "evaluation-drift": {"GET": ALL},
    "evaluation-plan": {"POST": ADMIN},
    "evaluation-reevaluate": {"POST": ADMIN},
    "evaluation-datasets": {"GET": ALL},
    "evaluation-dataset-new": {"GET": ADMIN, "POST": ADMIN},
    "evaluation-dataset": {"GET": ALL},
    "evaluation-loops": {"GET": ALL},
    "evaluation-loop-new": {"GET": ADMIN, "POST": ADMIN},
    "evaluation-loop": {"GET": ALL},
    "evaluation-loop-next": {"POST": ADMIN},
    "evaluation-loop-cancel": {"POST": ADMIN},
    "evaluation-loop-budget": {"POST": ADMIN},
    "evaluation-loop-group": {"GET": ALL, "POST": REVIEWER},
    "evaluation-template": {"GET": ALL},
    "evaluation-template-save": {"POST": ADMIN},
}
# Opening a card keeps when it was opened, for the reviewer's own decision; it writes no event.
OWN_NOTES = {"instruction-detail": "rules_cardlook"}
# Reading these is itself recorded; every other GET writes nothing.
RECORDED_READS = {
    "account-review-export",
    "audit",
    "audit-event",
    "audit-event-proof",
    "audit-query",
    "audit-export",
    "ruleset-export",
    "release-download",
    "evaluation-export",
    "evaluation-ablation-export",
    "ruleset-compare-export",
}


def walk(patterns: list[Any], path: str = "", namespace: str = "") -> Iterator[tuple[str, str]]:
    """Name and path of every URL, as the resolver knows them."""
    for one in patterns:
        here = path + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from walk(one.url_patterns, here, f"{namespace}{one.namespace}:" if one.namespace else namespace)
        elif isinstance(one, URLPattern):
            yield namespace + (one.name or ""), here


PATHS = dict(walk(get_resolver().url_patterns))


def test_every_url_has_a_row_in_the_table() -> None:
    missing = sorted(name or f"(no name) {path}" for name, path in PATHS.items() if name not in TABLE)
    assert not missing, f"add a line to TABLE in {__name__} for: {', '.join(missing)}"
    gone = sorted(set(TABLE) - set(PATHS))
    assert not gone, f"TABLE has lines for URLs that are no more: {', '.join(gone)}"
    assert len(PATHS) == len(list(walk(get_resolver().url_patterns))), "two URLs share a name"


def test_the_auditor_writes_nothing_and_the_admin_neither_decides_nor_signs() -> None:
    writable = [(name, who) for name, row in TABLE.items() for method, who in row.items() if method != "GET"]
    # Signing in and out, one's own password and language; the API's description is one document for every method.
    own = {
        "login",
        "login-second",
        "sso-start",
        "logout",
        "account-password",
        "preferences",
        "set-language",
        "api:openapi-json",
        # Searches of the log kept under an address: pages of the reader's own.
        "audit-query-new",
        "audit-query-delete",
        # Exporting: their bundle is built and signed for them.
        "bundle-request",
        "api-evaluation:openapi-json",
        # Compares a checkpoint the reader kept with the log; it writes nothing.
        "audit-log-check",
    }
    # And how they prove themselves, and which of their messages they have read.
    own |= {name for name, row in TABLE.items() if name.startswith(("security-", "inbox-")) and "POST" in row}
    assert {name for name, who in writable if Role.AUDITOR in who} == own
    deciding = [(name, who) for name, who in writable if name.startswith(("instruction-", "ruleset-", "release-"))]
    assert deciding
    assert not [name for name, who in deciding if Role.ADMIN in who]


# One object of each kind, and a browser for each person.


@dataclass(frozen=True)
class Scene:
    task: Task
    clients: Mapping[str, Client]
    arguments: Mapping[tuple[str, str], Any]

    def url(self, name: str) -> str:
        """The URL of a name: each argument under that name, its first word, or alone."""
        word = re.split(r"[-:]", name)[0]
        kwargs = {}
        for key in re.findall(r"<(?:\w+:)?(\w+)>", PATHS[name]):
            kwargs[key] = next(self.arguments[at, key] for at in (name, word, "") if (at, key) in self.arguments)
        return reverse(name, kwargs=kwargs)


@pytest.fixture
def scene(task: Task, ana: User, sam: User, sue: User, abe: User, ada: User) -> Scene:
    release = steps.in_production(task, ana, sam, sue)
    draft = steps.again_draft(task, ana)
    task.student = make_endpoint("http://127.0.0.1:9/v1", slug="student")
    task.save(update_fields=["student"])
    trace, _example = make_trace(task), make_trace(task, split="validation")
    instruction = make_instruction(task, "If copies must be burnt, then label Breach.")
    make_evidence(instruction, trace)
    made = TraceImport.objects.create(task=task, file_name="f.jsonl", file_sha256="0" * 64, file_bytes=1)
    run: EvaluationRun = make_run(task)
    item = draft.items.first()
    assert item
    kept = saved_view_save(task=task, owner=ada, name="Kept", audience="team", view=ReviewFilter())
    with transaction.atomic():
        hasty = make_user("hasty", Role.REVIEWER, Domain.LEGAL)
        pause = pause_open(task=task, user=hasty, reason=PauseReason.SPEED)
    other = make_user("other", Role.ADMIN)
    stop = stop_make(task=task, actor=sue, reason="Burns.", instruction_id=instruction.pk)
    key = AuditKey.objects.create(name="log", key_id="0" * 8, public_key=b"k", size=0, statement=b"", signature=b"")
    checkpoint = Checkpoint.objects.create(size=0, root=bytes(32), frontier=b"", note="log\n0\n", key=key)
    hook = webhook_create(
        task=task, name="student", url="https://student.example/hook", secret_env="PLD_WEBHOOK_STUDENT", actor=ada
    )
    alike = make_instruction(task, "If copies must be burnt at once, then label Breach.")
    batch = batch_defer(task=task, actor=ana, shown={alike.number: alike.version}).batch
    assert batch
    report = report_make(task_id=task.pk, month=date(2026, 3, 1))
    trained = training_grant(person=ana, domain="legal", expires_on=date(2099, 1, 1), note="Course 1.", admin=ada)
    loop, group, proposal = _loop(task, draft, instruction)
    arguments = {
        ("oversight", "month"): str(report),
        ("training", "pk"): trained.pk,
        ("evaluation-loop", "number"): loop,
        ("evaluation-loop-next", "number"): loop,
        ("evaluation-loop-cancel", "number"): loop,
        ("evaluation-loop-budget", "number"): loop,
        ("evaluation-loop-group", "number"): loop,
        ("evaluation-loop-group", "pk"): group,
        ("instruction-proposal-dismiss", "pk"): proposal,
        ("control", "pk"): stop.pk,
        ("control-schedule-cancel", "pk"): steps.schedule(release, sue).pk,
        ("webhook", "pk"): hook.pk,
        ("retention", "pk"): retention_propose(task=task, months=90, reason="Law.", actor=other).pk,
        ("retention-hold-release", "pk"): hold_place(
            actor=other, scope="object", object_type="task", object_id="0", reason="Suit."
        ).pk,
        **{
            (f"retention-erasure{act}", "pk"): erasure_request(
                kind="trace", numbers=[make_trace(task).pk], reason="Law.", actor=other
            ).pk
            for act in ("", "-confirm", "-refuse")
        },
        ("audit-checkpoint", "pk"): checkpoint.pk,
        ("audit", "pk"): AuditEvent.objects.earliest("pk").pk,
        ("audit", "search"): query_save(owner=abe, name="Kept", is_shared=True, search=AuditSearch()).slug,
        ("", "slug"): task.slug,
        ("", "task"): task.slug,
        ("", "kind"): "csv",
        ("", "endpoint"): "student",
        ("api", "key"): 1,
        ("release", "version"): release.version,
        ("release", "kind"): "json",
        ("ledger", "pk"): make_call(task.student, run="nda mining 1").pk,
        ("account", "pk"): other.pk,
        ("role", "pk"): role_request(user_id=sue.pk, role=Role.AUDITOR, domain="", reason="x", by=other).pk,
        ("security", "pk"): 1,
        ("inbox", "pk"): 1,
        ("import", "pk"): made.pk,
        ("trace", "pk"): trace.pk,
        ("mining", "pk"): mining_run_create(task=task, user=ada, parameters=MiningParameters()).pk,
        ("instruction-change-dismiss", "pk"): make_change(instruction).pk,
        ("token", "pk"): token_create(task=task, name="student", actor=ada)[0].pk,
        ("instruction", "number"): instruction.number,
        ("review", "number"): instruction.number,
        ("assignment", "number"): instruction.number,
        ("comment", "number"): instruction.number,
        ("comment", "pk"): comment_write(instruction_id=instruction.pk, author=ana, body="Is this so?").pk,
        ("review-pair-keep", "other"): alike.number,
        ("batch", "pk"): batch.pk,
        ("absence", "pk"): ana.pk,
        ("saved", "view"): kept.slug,
        ("seed", "pk"): seed_make(task=task, admin=ada, source_number=instruction.number, kind=SeedKind.POLARITY).pk,
        ("review-pause-lift", "pk"): pause.pk,
        ("ruleset", "number"): draft.number,
        ("ruleset", "item"): item.pk,
        ("ruleset-rule-read", "rule"): 1,
        ("ruleset", "old"): "1",
        ("ruleset", "new"): "v1",
        ("policy", "version"): steps.propose(task).version,
        ("gates", "version"): gates_propose(task=task, actor=ada, proof=make_proof(ada), reason="None yet.").version,
        ("gates-exception", "version"): release.version,
        ("ruleset-sign", "number"): steps.again_frozen(task, ana).number,
        ("ruleset-export", "number"): release.ruleset.number,
        ("bundles", "number"): release.ruleset.number,
        ("bundle", "number"): release.ruleset.number,
        ("bundle", "pk"): bundle_request(ruleset_id=release.ruleset_id, actor=abe).pk,
        ("evaluation", "number"): run.number,
        ("evaluation-reevaluate", "version"): release.version,
        ("evaluation-dataset", "number"): run.dataset.number,
        ("evaluation-ablation", "number"): measured_directly(
            finished_directly(make_run(task, kind=PromptKind.RELEASE, release=release))
        ).number,
        ("evaluation-group", "number"): RunGroup.objects.create(
            task=task, number=1, dataset=run.dataset, split="validation"
        ).number,
    }
    clients = {STRANGER: Client(raise_request_exception=False)}
    for user in (ana, sam, abe, ada):
        clients[user.role] = Client(raise_request_exception=False)
        clients[user.role].force_login(user)
        # On their way to an authenticator app, which is when its pages can be seen.
        totp_begin(user=user)
        session = clients[user.role].session
        session[UNLOCKED] = now().timestamp()
        session.save()
    return Scene(task, clients, arguments)


def _loop(task: Task, draft: Ruleset, instruction: Instruction) -> tuple[int, int, int]:
    """Number of a loop that waits for people, and keys of its one group and its proposal."""
    run = make_run(task, seed=1)
    answer_all(run)
    round_ = make_round(make_loop(run, draft), run, instruction)
    group = make_group(round_, instruction)
    proposal = make_proposal(instruction, "If copies must be burnt or kept, then label Breach.")
    propose(group, proposal)
    return round_.loop.number, group.pk, proposal.pk


def status_and_events(scene: Scene, who: str, method: str, url: str) -> tuple[Any, int]:
    """The answer, and how many audit events it wrote; all of it is undone."""
    before = AuditEvent.objects.count()
    with transaction.atomic():
        response = scene.clients[who].generic(method, url)
        written = AuditEvent.objects.count() - before
        transaction.set_rollback(True)
    return response, written


@pytest.mark.parametrize("name", TABLE)
def test_every_role_gets_what_the_table_says_and_no_more(name: str, scene: Scene) -> None:
    url = scene.url(name)
    wrong = []
    for method in METHODS:
        for who in sorted(ANYONE):
            response, written = status_and_events(scene, who, method, url)
            allowed = who in TABLE[name].get(method, frozenset())
            if outcome(response, name) != ("let in" if allowed else "refused") or (written and not allowed):
                wrong.append(f"{method} {who}: {response.status_code}, {written} events, allowed: {allowed}")
    assert not wrong


def outcome(response: Any, name: str) -> str:
    """Whether a request was let in, refused, or neither (an error, or a page that is not there)."""
    to_sign_in = response.status_code == 302 and "/sign-in/?next=" in response.headers["Location"]
    if (
        response.status_code in {401, 403, 405}
        or to_sign_in
        or (name.startswith(("api:", "api-evaluation:")) and response.status_code == 404)
    ):
        return "refused"
    return "let in" if response.status_code in {200, 302, 409, 422} else "failed"


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if "POST" in row])
def test_a_form_of_another_site_changes_nothing(name: str, scene: Scene) -> None:
    (who, *_others) = sorted(TABLE[name]["POST"])
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = scene.clients[who].cookies
    before = AuditEvent.objects.count()
    response = browser.post(scene.url(name), headers={"Origin": "https://evil.example"})
    assert response.status_code == 403
    assert "Send it again" in response.content.decode()
    assert AuditEvent.objects.count() == before


# Every page, as each role that may open it.


class Markup(HTMLParser):
    """What a page says and what the content security policy would block in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.title, self.language, self.headings, self.blocked = "", "", 0, list[str]()
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._inside = tag
        self.headings += tag == "h1"
        self.language = self.language or (values.get("lang") or "" if tag == "html" else "")
        self.blocked += [f"{tag} {key}" for key in values if key == "style" or key.startswith("on")]
        self.blocked += [f"{tag} {key}" for key, value in values.items() if (value or "").startswith("javascript:")]
        if tag == "style" or (tag == "script" and "src" not in values):
            self.blocked.append(tag)
        for key in ("src", "href", "action"):
            if re.match(r"(https?:)?//", values.get(key) or "") and tag != "a":
                self.blocked.append(f"{tag} {key}={values[key]}")

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if "GET" in row])
def test_every_page_opens_for_its_roles_without_anything_inline(name: str, scene: Scene) -> None:
    url = scene.url(name)
    for who in sorted(TABLE[name]["GET"]):
        with CaptureQueriesContext(connection) as queries:
            response: Any = scene.clients[who].get(url)
        if (name == "login" and who != STRANGER) or name in {"login-second", "sso-callback"}:
            assert response.status_code == 302
            continue
        if name == "bundle-download":  # not built yet: words that say so
            assert response.status_code == 409
            continue
        assert response.status_code == 200, (who, response.status_code)
        body = (b"".join(response.streaming_content) if response.streaming else response.content).decode()
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Request-ID"]
        if response.headers["Content-Type"].startswith("text/html"):
            page = Markup(body)
            assert page.title.strip(), who
            assert page.language
            assert page.headings == 1, (who, page.headings)
            assert page.blocked == [], who
        assert_reading_writes_nothing(name, [query["sql"] for query in queries])


def assert_reading_writes_nothing(name: str, statements: list[str]) -> None:
    writes = [sql for sql in statements if re.match(r"\s*(INSERT|UPDATE|DELETE)", sql)]
    if name in OWN_NOTES:
        writes = [sql for sql in writes if OWN_NOTES[name] not in sql]
    if name in RECORDED_READS:
        assert len(writes) == 1
        assert 'INSERT INTO "pld_app_auditevent"' in writes[0]
    else:
        assert writes == []


def test_a_closed_account_is_shut_out_at_once(scene: Scene) -> None:
    assert scene.clients[Role.ADMIN].get("/accounts/").status_code == 200
    User.objects.filter(username="ada").update(is_active=False)
    assert scene.clients[Role.ADMIN].get("/accounts/").status_code == 302
