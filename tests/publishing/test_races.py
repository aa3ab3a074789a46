"""Two people at the same moment, on two real connections: one of them wins, and what is left is whole."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from django.db import close_old_connections, connection

from pld_app.errors import Refusal
from pld_app.models import AuditEvent, Domain, Role, User
from rules.models import Instruction, Meaning, Release, Ruleset, RulesetStatus, Signature, Task
from rules.selectors.publishing import current_publication
from rules.services.publishing import release_create
from rules.services.rulesets import ruleset_freeze
from rules.services.signing import ruleset_sign
from rules.services.withdrawing import ruleset_withdraw
from tests.factories import approve_directly, make_proof, make_task, make_user
from tests.publishing import steps

ROUNDS = 50
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def cast(transactional_db: None) -> tuple[Task, User, User, User, User]:
    """Task, two reviewers, two signatories."""
    return (
        make_task(),
        make_user("ana", Role.REVIEWER, Domain.LEGAL),
        make_user("ben", Role.REVIEWER, Domain.FINANCE),
        make_user("sam", Role.SIGNATORY),
        make_user("sue", Role.SIGNATORY),
    )


def at_once(*acts: Callable[[], object]) -> list[str]:
    """Run each on a connection of its own behind one barrier: "done" or the refusal's words, in order.

    Any other exception fails the test: a race must end in words, never in an error page.
    """
    barrier = threading.Barrier(len(acts))
    outcomes: list[str | BaseException] = [""] * len(acts)

    def run(place: int, act: Callable[[], object]) -> None:
        connection.ensure_connection()
        barrier.wait()
        try:
            act()
            outcomes[place] = "done"
        except Refusal as refusal:
            outcomes[place] = str(refusal)
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            outcomes[place] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(place, act)) for place, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    close_old_connections()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [str(outcome) for outcome in outcomes]


def test_two_signers_at_once_both_count_and_the_ruleset_is_signed_once(
    cast: tuple[Task, User, User, User, User],
) -> None:
    task, ana, _ben, sam, sue = cast
    steps.approved(task, ana, 2)
    for _round in range(ROUNDS):
        ruleset = steps.again_frozen(task, ana)
        assert at_once(lambda r=ruleset: steps.sign(r, sam), lambda r=ruleset: steps.sign(r, sue)) == ["done", "done"]  # type: ignore[misc]
        ruleset.refresh_from_db()
        assert ruleset.status == RulesetStatus.SIGNED
        events = AuditEvent.objects.filter(action="ruleset.signed", object_id=str(ruleset.pk))
        assert sorted(event.data["completes"] for event in events) == [False, True]


def test_one_signer_twice_at_once_signs_once(cast: tuple[Task, User, User, User, User]) -> None:
    task, ana, _ben, sam, _sue = cast
    steps.approved(task, ana, 2)
    for _round in range(ROUNDS):
        ruleset = steps.again_frozen(task, ana)
        outcomes = at_once(*[lambda r=ruleset: steps.sign(r, sam)] * 2)
        assert sorted(outcomes, key=len) == ["done", "You have already signed this ruleset."]
        assert Signature.objects.filter(ruleset=ruleset).count() == 1


def test_reopening_against_the_last_signature_never_leaves_a_signed_ruleset(
    cast: tuple[Task, User, User, User, User],
) -> None:
    task, ana, ben, sam, sue = cast
    one = steps.approved(task, ana, 2)[0]
    seen: Counter[str] = Counter()
    for _round in range(ROUNDS):
        ruleset = steps.again_frozen(task, ana)
        steps.sign(ruleset, sam, Meaning.REVIEWED)
        outcomes = at_once(lambda: steps.reopen(one, ben), lambda r=ruleset: steps.sign(r, sue))  # type: ignore[misc]
        assert outcomes[0] == "done"
        seen[outcomes[1]] += 1
        ruleset.refresh_from_db()
        assert ruleset.status == RulesetStatus.WITHDRAWN
        assert ruleset.withdrawn_reason == "Instruction #1 is no longer approved."
        one.refresh_from_db()
        approve_directly(one, ben)
    assert set(seen) <= {"done", "This ruleset is not in sign-off. Reload to see how it stands."}


def test_reopening_against_freezing_never_freezes_what_is_not_approved(
    cast: tuple[Task, User, User, User, User],
) -> None:
    task, ana, ben, _sam, _sue = cast
    one = steps.approved(task, ana, 2)[0]
    for _round in range(ROUNDS):
        draft = steps.again_draft(task, ana)
        outcomes = at_once(
            lambda: steps.reopen(one, ben),
            lambda r=draft: ruleset_freeze(ruleset_id=r.pk, editor=ana, version=r.version),  # type: ignore[misc]
        )
        assert outcomes[0] == "done"
        draft.refresh_from_db()
        # Frozen first: the reopening withdrew it. Reopened first: the freeze was refused and it is a draft still.
        frozen = outcomes[1] == "done"
        assert draft.status == (RulesetStatus.WITHDRAWN if frozen else RulesetStatus.DRAFT)
        assert frozen or "no longer approved" in outcomes[1]
        assert Instruction.objects.get(pk=one.pk).status == "in_review"
        one.refresh_from_db()
        approve_directly(one, ben)


def test_publishing_against_withdrawing_never_serves_what_was_withdrawn(
    cast: tuple[Task, User, User, User, User],
) -> None:
    task, ana, _ben, sam, sue = cast
    steps.approved(task, ana, 2)
    seen: Counter[str] = Counter()
    for _round in range(ROUNDS):
        release = steps.again(task, ana, sam, sue)
        outcomes = at_once(
            lambda r=release: steps.publish(r, sam),  # type: ignore[misc]
            lambda r=release: ruleset_withdraw(  # type: ignore[misc]
                ruleset_id=r.ruleset_id, actor=sue, reason="Wrong.", proof=make_proof(sue)
            ),
        )
        assert outcomes[1] == "done"
        seen[outcomes[0]] += 1
        assert current_publication(task.pk, "staging") is None
        published = release.publications.first()
        if published is not None:  # then it came first: its event is older than the withdrawal's
            withdrawn = AuditEvent.objects.get(action="ruleset.withdrawn", object_id=str(release.ruleset_id))
            assert published.event_id < withdrawn.pk
    assert set(seen) <= {"done", "The ruleset of this release was withdrawn. Publish another release."}


def test_two_releases_of_one_task_at_once_have_versions_without_gaps(
    cast: tuple[Task, User, User, User, User],
) -> None:
    task, ana, _ben, sam, sue = cast
    steps.approved(task, ana, 1)
    rulesets: list[Ruleset] = []
    for _number in range(10):
        ruleset = steps.again_frozen(task, ana)
        steps.sign(ruleset, sam)
        steps.sign(ruleset, sue)
        rulesets.append(ruleset)
    for first, second in zip(rulesets[::2], rulesets[1::2], strict=True):
        outcomes = at_once(
            lambda r=first: release_create(ruleset_id=r.pk, signatory=sam),  # type: ignore[misc]
            lambda r=second: release_create(ruleset_id=r.pk, signatory=sue),  # type: ignore[misc]
        )
        assert outcomes == ["done", "done"]
    assert sorted(Release.objects.values_list("version", flat=True)) == list(range(1, 11))
    twice = steps.again_frozen(task, ana)
    steps.sign(twice, sam)
    steps.sign(twice, sue)
    outcomes = at_once(*[lambda: release_create(ruleset_id=twice.pk, signatory=sam)] * 2)
    assert sorted(outcomes, key=len) == ["done", "This ruleset has been released already. Reload to see its release."]


def test_parallel_guesses_are_all_counted(cast: tuple[Task, User, User, User, User]) -> None:
    """Twenty guesses at once: five are tried, the others meet the lock."""
    task, ana, _ben, sam, _sue = cast
    ruleset = steps.frozen(task, ana, 1)
    outcomes = at_once(
        *[
            lambda: ruleset_sign(
                ruleset_id=ruleset.pk,
                signer=sam,
                proof=make_proof(sam, password="wrong"),
                meaning=Meaning.APPROVED,
                manifest_sha256=ruleset.manifest_sha256,
            )
        ]
        * 20
    )
    causes = Counter(AuditEvent.objects.filter(action="signature.refused").values_list("data__cause", flat=True))
    assert causes == {"password": 5, "locked": 15}
    assert sum("locked" in words for words in outcomes) == 16  # the fifth is told that it locked
