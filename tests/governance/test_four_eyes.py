"""Four eyes: who may sign and publish (C17, C18), how the policy changes, what a signer opens first, and attacks."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection
from django.test import Client

from pld_app.audit import audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import Domain, Role, User
from rules.exceptions import InvalidTransition, Stale
from rules.forms.tasks import TaskForm
from rules.models import (
    ChannelName,
    Conflict,
    MiningRun,
    PolicyDecision,
    RuleRead,
    Ruleset,
    RulesetStatus,
    SignOffPolicy,
    Task,
)
from rules.selectors.policy import policy_in_force, to_be_read
from rules.selectors.publishing import current_release
from rules.selectors.rulesets import policy_of, ruleset_compile, signature_state
from rules.services.policy import policy_decide, policy_propose
from rules.services.publishing import release_create
from rules.services.rulesets import ruleset_create, ruleset_freeze
from rules.services.signing import ProofRefused, rule_read, ruleset_sign
from tests.factories import (
    PASSWORD,
    approve_directly,
    audit_actions,
    change_role,
    make_instruction,
    make_proof,
    make_task,
    make_user,
)
from tests.publishing import steps
from tests.publishing.test_database import publish_directly, refused, sign_directly, sql

type ClientOf = Callable[[User], Client]
BOTH = [Role.SIGNATORY, Role.REVIEWER]


@pytest.fixture
def eve(db: None) -> User:
    """Another administrator."""
    return make_user("eve", Role.ADMIN)


def propose(task: Task, actor: User, **points: Any) -> SignOffPolicy:
    return policy_propose(task=task, actor=actor, proof=make_proof(actor), reason="The board asks.", **points)


def decide(policy: SignOffPolicy, actor: User, verdict: str = "confirmed") -> PolicyDecision:
    return policy_decide(policy_id=policy.pk, actor=actor, verdict=verdict, proof=make_proof(actor))


class TestThePolicyTakesTwo:
    def test_one_proposes_and_a_second_confirms(self, task: Task, ada: User, eve: User) -> None:
        proposed = propose(task, ada, signers_required=3)
        assert policy_in_force(task).version == 1
        decide(proposed, eve)
        task.refresh_from_db()
        assert (policy_in_force(task).version, task.signers_required) == (2, 3)
        assert audit_actions(task) == ["policy.proposed", "policy.confirmed"]

    def test_a_signatory_confirms_too_and_a_refusal_leaves_all_as_it_was(
        self, task: Task, ada: User, sam: User
    ) -> None:
        decide(propose(task, ada, signer_roles=BOTH), sam, "refused")
        decide(propose(task, ada, signers_required=4), sam)
        assert (policy_in_force(task).version, policy_in_force(task).signer_roles) == (3, [Role.SIGNATORY])

    @pytest.mark.parametrize("name", ["ana", "sam", "abe"])
    def test_only_an_administrator_proposes(self, task: Task, name: str, request: pytest.FixtureRequest) -> None:
        with pytest.raises(NotAllowed):
            propose(task, request.getfixturevalue(name), signers_required=3)

    def test_nobody_confirms_their_own_proposal_nor_do_reviewers_and_auditors(
        self, task: Task, ada: User, ana: User, abe: User
    ) -> None:
        proposed = propose(task, ada, signers_required=3)
        for person in (ada, ana, abe):
            with pytest.raises(NotAllowed):
                decide(proposed, person)
            event = audit_record("policy.confirmed", actor=person, subject=task)
            words = "own proposal" if person == ada else "only an active administrator or signatory"
            refused(
                words,
                lambda p=person, e=event: PolicyDecision.objects.create(  # type: ignore[misc]
                    policy=proposed,
                    verdict="confirmed",
                    actor=p,
                    actor_name=str(p),
                    actor_role=p.role,
                    authenticated_at=steps.minutes_ago(0),
                    event=e,
                ),
            )
        decide(proposed, ada, "refused")  # its proposer takes it back

    def test_no_second_proposal_waits_and_none_is_decided_twice(self, task: Task, ada: User, eve: User) -> None:
        proposed = propose(task, ada, signers_required=3)
        with pytest.raises(Stale, match="waits for its decision"):
            propose(task, eve, signers_required=4)
        decide(proposed, eve)
        with pytest.raises(InvalidTransition, match="decided already"):
            decide(proposed, eve, "refused")
        with pytest.raises(InvalidInput, match="policy in force"):
            propose(task, ada, signers_required=3)

    def test_it_takes_the_password_a_reason_and_the_page_of_now(self, task: Task, ada: User, eve: User) -> None:
        with pytest.raises(ProofRefused):
            policy_propose(
                task=task, actor=ada, proof=make_proof(ada, password="wrong"), reason="x", signers_required=3
            )
        with pytest.raises(InvalidInput, match="Say why"):
            policy_propose(task=task, actor=ada, proof=make_proof(ada), reason=" ", signers_required=3)
        decide(propose(task, ada, signers_required=3), eve)
        with pytest.raises(Stale, match="changed since"):
            propose(task, ada, expected=1, signers_required=4)

    def test_no_other_way_leads_around_the_second_person(self, task: Task, ada: User) -> None:
        by_proposal = "changes by a proposal"
        refused(by_proposal, lambda: Task.objects.filter(pk=task.pk).update(signers_required=9))
        refused(by_proposal, lambda: Task.objects.filter(pk=task.pk).update(signer_roles=BOTH))
        refused(by_proposal, sql("UPDATE rules_task SET signer_roles = '{reviewer}' WHERE id = %s", task.pk))
        columns = "task_id, version, signers_required, signer_roles, signatories_required, domains, miners_may_sign"
        columns += ", publisher_may_have_signed, read_changed_first, reason, created_at"
        row = "(%s, {}, 2, '{{signatory}}', 0, '{{}}', true, true, false, '', now())"
        for version in (1, 3):
            refused(
                "no gaps", sql(f"INSERT INTO rules_signoffpolicy ({columns}) VALUES {row.format(version)}", task.pk)
            )
        refused(
            "only an active administrator",
            sql(f"INSERT INTO rules_signoffpolicy ({columns}) VALUES {row.format(2)}", task.pk),
        )

    def test_its_rows_are_never_changed(self, task: Task, ada: User, eve: User) -> None:
        decide(propose(task, ada, signers_required=3), eve)
        sql("SET CONSTRAINTS ALL IMMEDIATE")()
        for table in ("rules_signoffpolicy", "rules_policydecision"):
            for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET id = id", f"TRUNCATE {table} CASCADE"):
                refused("append-only", sql(statement), DatabaseError)

    def test_the_page_shows_it_and_its_history(
        self, task: Task, ada: User, sam: User, ana: User, client_of: ClientOf
    ) -> None:
        browser = client_of(ada)
        sent = {
            "expected": 1,
            "signers_required": 3,
            "signer_roles": ["signatory", "reviewer"],
            "signatories_required": 1,
            "domains": ["legal", "finance"],
            "read_changed_first": "on",
            "reason": "Legal and finance sign.",
            "password": PASSWORD,
            "consent": "on",
        }
        assert browser.post("/tasks/nda/policy/propose/", {**sent, "signer_roles": ["signatory"]}).status_code == 422
        assert browser.post("/tasks/nda/policy/propose/", {**sent, "password": "wrong"}).status_code == 422
        assert browser.post("/tasks/nda/policy/propose/", sent).status_code == 302
        assert "You proposed this" in browser.get("/tasks/nda/policy/").content.decode()
        assert browser.post("/tasks/nda/policy/2/confirm/", {"password": PASSWORD, "version": 2}).status_code == 403
        proof = {"password": PASSWORD, "consent": "on", "version": 2}
        assert client_of(sam).post("/tasks/nda/policy/2/confirm/", proof).status_code == 302
        page = client_of(ana).get("/tasks/nda/policy/").content.decode()
        assert "confirmed by Sam (Signatory)" in page
        assert "Legal and finance sign." in page
        assert policy_in_force(task).domains == ["legal", "finance"]


class TestTheSignedBytesCarryThePolicy:
    def test_a_manifest_names_all_of_it(self, task: Task, ana: User) -> None:
        steps.policy(task, signer_roles=BOTH, signatories_required=1, domains=["legal"])
        manifest = json.loads(bytes(steps.frozen(task, ana).manifest or b""))
        assert manifest["schema"] == "ruleset-manifest/v2"
        assert manifest["policy"] == {
            "version": 2,
            "signers_required": 2,
            "signer_roles": ["reviewer", "signatory"],
            "signatories_required": 1,
            "domains": ["legal"],
            "miners_may_sign": False,
            "publisher_may_have_signed": True,
            "read_changed_first": True,
        }

    @pytest.mark.parametrize(
        "change", [{"version": 7}, {"read_changed_first": False}, {"miners_may_sign": True}, {"domains": ["legal"]}]
    )
    def test_a_manifest_with_another_policy_is_not_frozen(self, task: Task, ana: User, change: dict[str, Any]) -> None:
        ruleset = steps.draft(task, ana)
        refused("sign-off policy of its task", freeze_as(ruleset, lambda m: m["policy"].update(change)))

    def test_nor_one_of_the_older_schema_which_would_leave_points_out(self, task: Task, ana: User) -> None:
        refused("sign-off policy of its task|frame", freeze_as(steps.draft(task, ana), as_v1))

    def test_what_was_frozen_under_the_older_schema_stays_valid(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        """A ruleset of the time before: signed, released and served under the two points its bytes name."""
        ruleset = steps.draft(task, ana)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("ALTER TABLE rules_ruleset DISABLE TRIGGER pld_guard_ruleset_update_prompt")
            freeze_as(ruleset, as_v1)()
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("ALTER TABLE rules_ruleset ENABLE ALWAYS TRIGGER pld_guard_ruleset_update_prompt")
        ruleset.refresh_from_db()
        for signer in (sam, sue):
            steps.sign(ruleset, signer)
        release = release_create(ruleset_id=ruleset.pk, signatory=sam)
        for channel in (ChannelName.STAGING, ChannelName.PRODUCTION):
            steps.publish(release, sam, channel)
        assert current_release(task, ChannelName.PRODUCTION) == release

    def test_a_policy_confirmed_later_voids_what_is_not_released(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        waiting = steps.frozen(task, ana)
        steps.sign(waiting, sam)
        ready = steps.again_frozen(task, ana)
        for signer in (sam, sue):
            steps.sign(ready, signer)
        steps.policy(task, signers_required=3)
        with pytest.raises(WrongState, match="policy changed since"):
            steps.sign(waiting, sue)
        with pytest.raises(WrongState, match="policy changed since"):
            release_create(ruleset_id=ready.pk, signatory=sam)
        refused("policy changed since", lambda: sign_directly(waiting, sue))


def freeze_as(ruleset: Ruleset, change: Callable[[dict[str, Any]], object]) -> Callable[[], Any]:
    compiled = ruleset_compile(ruleset)
    content = json.loads(compiled.manifest)
    change(content)
    data = canonical_json(content)
    return lambda: Ruleset.objects.filter(pk=ruleset.pk).update(
        status=RulesetStatus.IN_SIGN_OFF,
        manifest=data,
        manifest_sha256=sha256_hex(data),
        prompt=compiled.prompt,
        prompt_sha256=compiled.prompt_sha256,
        frozen_at=steps.minutes_ago(0),
    )


def as_v1(content: dict[str, Any]) -> None:
    content["schema"] = "ruleset-manifest/v1"
    content["policy"] = {key: content["policy"][key] for key in ("signers_required", "signer_roles")}


class TestDutiesAreApart:
    """C17: nobody holds two of editor, first approver, second approver and publisher of one ruleset."""

    def test_c17_composer_and_author_neither_sign_nor_publish(
        self, task: Task, ana: User, ben: User, sam: User, sue: User, ada: User
    ) -> None:
        steps.policy(task, signer_roles=BOTH)
        edited = make_instruction(task)
        steps.edit(edited, ben)
        approve_directly(edited, ana)
        ruleset = steps.frozen(task, ana)
        for person in (ana, ben):
            with pytest.raises(NotAllowed):
                steps.sign(ruleset, person)
            refused("composed or edited", lambda p=person: sign_directly(ruleset, p))  # type: ignore[misc]
        for signer in (sam, sue):
            steps.sign(ruleset, signer)
        release = release_create(ruleset_id=ruleset.pk, signatory=sam)
        # Not even when their role is another by now.
        for person in (ana, ben):
            change_role(person, Role.SIGNATORY, by=ada)
            person.refresh_from_db()
            with pytest.raises(NotAllowed, match="another signatory must publish"):
                steps.publish(release, person)
            refused("does not publish", lambda p=person: publish_directly(release, p))  # type: ignore[misc]

    def test_c17_a_signer_publishes_only_where_the_policy_says_so(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        steps.policy(task, publisher_may_have_signed=False)
        release = steps.released(task, ana, sam, sue)
        for person in (sam, sue):
            with pytest.raises(NotAllowed, match="did not sign"):
                steps.publish(release, person)
            refused("who signed a ruleset does not publish", lambda p=person: publish_directly(release, p))  # type: ignore[misc]
        steps.publish(release, make_user("tom", Role.SIGNATORY))

    def test_c17_by_default_four_people_hold_the_four_duties(self, ana: User, sam: User, sue: User) -> None:
        """A task as the form makes it: the service and SQL refuse each of the three others as publisher."""
        task = make_task("ads", publisher_may_have_signed=Task._meta.get_field("publisher_may_have_signed").default)
        assert not policy_in_force(task).publisher_may_have_signed
        assert "publisher_may_have_signed" not in TaskForm().initial
        refused("changes by a proposal", lambda: Task.objects.filter(pk=task.pk).update(publisher_may_have_signed=True))
        release = steps.released(task, ana, sam, sue)
        for person in (ana, sam, sue):
            with pytest.raises(NotAllowed):
                steps.publish(release, person)
            refused("does not publish|only an active signatory", lambda p=person: publish_directly(release, p))  # type: ignore[misc]
        tom = make_user("tom", Role.SIGNATORY)
        steps.publish(release, tom)
        assert len({ana, sam, sue, tom}) == 4

    def test_c17_a_stricter_policy_counts_for_what_was_signed_before_it(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        release = steps.released(task, ana, sam, sue)
        steps.policy(task, publisher_may_have_signed=False)
        with pytest.raises(NotAllowed, match="did not sign"):
            steps.publish(release, sam)

    def test_who_started_the_mining_does_not_sign(self, task: Task, ana: User, sam: User, sue: User) -> None:
        run = MiningRun.objects.create(task=task, number=1, created_by=sam)
        approve_directly(make_instruction(task, run=run), ana)
        ruleset = steps.frozen(task, ana)
        with pytest.raises(NotAllowed, match="Started the mining"):
            steps.sign(ruleset, sam)
        refused("started the mining", lambda: sign_directly(ruleset, sam))
        steps.sign(ruleset, sue)

    def test_signatories_and_domains_are_counted(self, task: Task, ana: User, sam: User) -> None:
        steps.policy(task, signer_roles=BOTH, signers_required=2, signatories_required=1, domains=["legal", "finance"])
        ruleset = steps.frozen(task, ana)
        cleo, finn = make_user("cleo", Role.REVIEWER, Domain.LEGAL), make_user("finn", Role.REVIEWER, Domain.FINANCE)
        for person, status in ((cleo, "in_sign_off"), (sam, "in_sign_off"), (finn, "signed")):
            steps.sign(ruleset, person)
            refused_or_signed = Ruleset.objects.get(pk=ruleset.pk).status
            assert refused_or_signed == status
            if status == "in_sign_off":
                act = lambda: Ruleset.objects.filter(pk=ruleset.pk).update(status="signed")  # noqa: E731
                refused("signatures are missing", act)
        # A domain left after signing takes nothing away: the signature keeps the one it was made in.
        change_role(finn, Role.REVIEWER, Domain.LEGAL, by=make_user("ada", Role.ADMIN))
        assert signature_state(policy_of(ruleset), list(ruleset.signatures.all())).is_complete

    def test_c18_an_administrator_can_configure_but_not_decide_sign_or_publish(
        self, task: Task, ana: User, sam: User, sue: User, ada: User
    ) -> None:
        ruleset = steps.frozen(task, ana)
        with pytest.raises(NotAllowed):
            steps.sign(ruleset, ada)
        refused("may not sign", lambda: sign_directly(ruleset, ada))
        refused("Only signatories|sign_off_policy_roles", lambda: steps.propose(task, signer_roles=[Role.ADMIN]))
        for signer in (sam, sue):
            steps.sign(ruleset, signer)
        with pytest.raises(NotAllowed):
            release_create(ruleset_id=ruleset.pk, signatory=ada)


class TestChangedInstructionsAreOpenedFirst:
    @pytest.fixture
    def ruleset(self, task: Task, ana: User, ben: User) -> Ruleset:
        """Instruction 1 as mined, 2 edited, 3 in conflict with one that was not taken up."""
        plain, edited, disputed, other = (
            make_instruction(task, f"If {n} holds, then label Compliant.") for n in "abcd"
        )
        steps.edit(edited, ben)
        for one in (plain, edited, disputed):
            approve_directly(one, ana)
        run = MiningRun.objects.create(task=task, number=1)
        kinds: dict[str, Any] = {"kind": "conflict", "strength": 0.5, "same_pairs": 1, "opposed_pairs": 0}
        Conflict.objects.create(run=run, first=disputed, second=other, **kinds)
        ruleset = ruleset_create(task=task, composer=ana)
        return ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)

    def sign(self, ruleset: Ruleset, signer: User) -> object:
        """Sign without opening anything first."""
        return ruleset_sign(
            ruleset_id=ruleset.pk,
            signer=signer,
            proof=make_proof(signer),
            meaning="approved",
            manifest_sha256=ruleset.manifest_sha256,
        )

    def test_signing_waits_until_each_was_opened_by_this_signer(self, ruleset: Ruleset, sam: User, sue: User) -> None:
        first, second = sorted(to_be_read(ruleset))
        numbers = ruleset.items.filter(instruction__in=[first, second]).values_list("instruction__number", flat=True)
        assert list(numbers) == [2, 3]
        rule_read(ruleset_id=ruleset.pk, instruction_id=first, reader=sam)
        rule_read(ruleset_id=ruleset.pk, instruction_id=second, reader=sue)
        with pytest.raises(InvalidInput, match="Open every edited"):
            self.sign(ruleset, sam)
        refused("open every edited or conflicting", lambda: sign_directly(ruleset, sam))
        assert rule_read(ruleset_id=ruleset.pk, instruction_id=second, reader=sam)
        assert not rule_read(ruleset_id=ruleset.pk, instruction_id=second, reader=sam)
        self.sign(ruleset, sam)
        assert RuleRead.objects.filter(reader=sam).count() == audit_actions(ruleset).count("ruleset.rule_read") - 1

    def test_what_is_opened_belongs_to_a_ruleset_in_sign_off(
        self, ruleset: Ruleset, task: Task, sam: User, ana: User
    ) -> None:
        stranger = make_instruction(task)
        with pytest.raises(Stale):
            rule_read(ruleset_id=ruleset.pk, instruction_id=stranger.pk, reader=sam)
        event = audit_record("ruleset.rule_read", actor=sam, subject=ruleset)
        refused(
            "not in sign-off",
            lambda: RuleRead.objects.create(ruleset=ruleset, instruction=stranger, reader=sam, event=event),
        )
        rule_read(ruleset_id=ruleset.pk, instruction_id=max(to_be_read(ruleset)), reader=sam)
        refused("append-only", sql("DELETE FROM rules_ruleread"))

    def test_a_policy_without_it_asks_for_nothing(self, task: Task, ruleset: Ruleset, ana: User, sam: User) -> None:
        steps.policy(task, read_changed_first=False)
        self.sign(steps.again_frozen(task, ana), sam)


def test_a_ruleset_form_sent_twice_opens_one_draft(task: Task, ana: User, ben: User, client_of: ClientOf) -> None:
    steps.approved(task, ana, 2)
    sent = {"name": "Spring", "start": "approved", "key": str(uuid4())}
    browser = client_of(ana)
    places = [browser.post("/tasks/nda/rulesets/new/", sent).headers["Location"] for _ in range(2)]
    assert places == ["/tasks/nda/rulesets/1/"] * 2
    assert (Ruleset.objects.count(), audit_actions(Ruleset.objects.get())) == (1, ["ruleset.created"])
    browser.post("/tasks/nda/rulesets/new/", {**sent, "key": str(uuid4())})
    assert Ruleset.objects.count() == 2


def test_a_refusal_by_role_says_whose_it_is(task: Task, ana: User, client_of: ClientOf) -> None:
    response = client_of(ana).get("/tasks/nda/tokens/")
    assert response.status_code == 403
    assert "This is for: auditor, administrator. You are signed in as reviewer." in response.content.decode()
