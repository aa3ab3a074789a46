"""Releases and channels: what moves them, what they serve, what is refused."""

import pytest

from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import AuditEvent, User
from rules.exceptions import InvalidTransition, Stale
from rules.models import ChannelName, Publication, Release, RulesetStatus, Task
from rules.selectors.publishing import channel_states, current_release
from rules.services.publishing import release_create, release_publish, release_rollback
from rules.services.signing import ProofRefused
from rules.services.tokens import token_create, token_revoke
from rules.services.withdrawing import ruleset_withdraw
from tests.factories import audit_actions, make_proof, make_task
from tests.publishing import steps

PRODUCTION, STAGING = ChannelName.PRODUCTION, ChannelName.STAGING


def roll_back(release: Release, actor: User, channel: ChannelName = PRODUCTION, reason: str = "Bad answers.") -> None:
    release_rollback(release_id=release.pk, channel=channel, actor=actor, proof=make_proof(actor), reason=reason)


def serve(task: Task, release: Release, actor: User) -> Release:
    for channel in (STAGING, PRODUCTION):
        steps.publish(release, actor, channel)
    return release


@pytest.fixture
def three(task: Task, ana: User, sam: User, sue: User) -> list[Release]:
    """Three releases, each of which was in production for a while; the third still is."""
    first = steps.in_production(task, ana, sam, sue)
    return [first, *(serve(task, steps.again(task, ana, sam, sue), sam) for _ in range(2))]


def test_a_release_carries_the_signed_bytes(task: Task, ana: User, sam: User, sue: User) -> None:
    ruleset = steps.signed(task, ana, sam, sue)
    release = release_create(ruleset_id=ruleset.pk, signatory=sam)
    assert (release.version, release.prompt, release.prompt_sha256) == (1, ruleset.prompt, ruleset.prompt_sha256)
    assert audit_actions(ruleset)[-1] == "release.created"
    assert current_release(task, PRODUCTION) is None


def test_only_a_signed_ruleset_is_released_and_only_once(task: Task, ana: User, sam: User, sue: User) -> None:
    ruleset = steps.frozen(task, ana)
    steps.sign(ruleset, sam)
    with pytest.raises(WrongState, match="Only a signed ruleset"):
        release_create(ruleset_id=ruleset.pk, signatory=sam)
    steps.sign(ruleset, sue)
    release_create(ruleset_id=ruleset.pk, signatory=sam)
    with pytest.raises(WrongState, match="released already"):
        release_create(ruleset_id=ruleset.pk, signatory=sue)
    assert Release.objects.count() == AuditEvent.objects.filter(action="release.created").count() == 1


@pytest.mark.parametrize("name", ["ana", "abe", "ada"])
def test_only_a_signatory_releases_and_publishes(
    task: Task, ana: User, sam: User, sue: User, name: str, request: pytest.FixtureRequest
) -> None:
    person: User = request.getfixturevalue(name)
    release = steps.released(task, ana, sam, sue)
    for refused in (
        lambda: release_create(ruleset_id=release.ruleset_id, signatory=person),
        lambda: steps.publish(release, person),
        lambda: roll_back(release, person),
    ):
        with pytest.raises(NotAllowed):
            refused()


def test_staging_comes_before_production(task: Task, ana: User, sam: User, sue: User) -> None:
    release = steps.released(task, ana, sam, sue)
    with pytest.raises(WrongState, match="staging before production"):
        steps.publish(release, sam, PRODUCTION)
    serve(task, release, sam)
    assert current_release(task, PRODUCTION) == release
    assert audit_actions(release) == ["release.published", "release.published"]


def test_a_wrong_password_publishes_nothing(task: Task, ana: User, sam: User, sue: User) -> None:
    release = steps.released(task, ana, sam, sue)
    with pytest.raises(ProofRefused):
        release_publish(release_id=release.pk, channel=STAGING, actor=sam, proof=make_proof(sam, password="wrong"))
    assert not Publication.objects.exists()
    assert AuditEvent.objects.get(action="signature.refused").data["purpose"] == "publish"


def test_a_page_opened_before_the_channel_moved_is_refused(three: list[Release], task: Task, sam: User) -> None:
    old = channel_states(task)[1].newest_id
    roll_back(three[1], sam)
    with pytest.raises(Stale, match="moved since"):
        release_publish(
            release_id=three[0].pk, channel=PRODUCTION, actor=sam, proof=make_proof(sam), expected_newest=old
        )


def test_publishing_what_is_served_already_is_refused(three: list[Release], sam: User) -> None:
    with pytest.raises(WrongState, match="already serves"):
        steps.publish(three[2], sam, PRODUCTION)


def test_a_rollback_needs_a_reason_and_a_release_that_was_there(
    three: list[Release], task: Task, ana: User, sam: User, sue: User
) -> None:
    with pytest.raises(InvalidInput, match="Say why"):
        roll_back(three[0], sam, reason=" ")
    never = steps.again(task, ana, sam, sue)
    with pytest.raises(WrongState, match="was in this channel before"):
        roll_back(never, sam)
    roll_back(three[0], sam)
    assert current_release(task, PRODUCTION) == three[0]
    assert current_release(task, STAGING) == three[2]
    assert audit_actions(three[0])[-1] == "release.rolled_back"


def test_a_withdrawn_release_makes_room_for_the_valid_one_before_it(
    three: list[Release], task: Task, sam: User
) -> None:
    ruleset_withdraw(ruleset_id=three[2].ruleset_id, actor=sam, reason="Wrong law.", proof=make_proof(sam))
    assert current_release(task, PRODUCTION) == three[1]
    assert channel_states(task)[1].is_superseded
    for release in (three[1], three[0]):
        ruleset_withdraw(ruleset_id=release.ruleset_id, actor=sam, reason="Wrong law.", proof=make_proof(sam))
    assert current_release(task, PRODUCTION) is None


def test_what_was_rolled_back_from_does_not_come_back_by_itself(three: list[Release], task: Task, sam: User) -> None:
    """1, 2, 3, back to 2, and 2 is withdrawn: 3 was left on purpose, so 1 is served."""
    roll_back(three[1], sam)
    ruleset_withdraw(ruleset_id=three[1].ruleset_id, actor=sam, reason="Wrong too.", proof=make_proof(sam))
    assert current_release(task, PRODUCTION) == three[0]
    steps.publish(three[2], sam, PRODUCTION)
    assert current_release(task, PRODUCTION) == three[2]


def test_a_withdrawn_release_is_not_published(three: list[Release], sam: User) -> None:
    ruleset_withdraw(ruleset_id=three[0].ruleset_id, actor=sam, reason="Old.", proof=make_proof(sam))
    for refused in (lambda: steps.publish(three[0], sam), lambda: roll_back(three[0], sam)):
        with pytest.raises(WrongState, match="was withdrawn"):
            refused()


def test_withdrawing_a_released_ruleset_takes_a_signatory_and_the_password(
    three: list[Release], ana: User, sam: User
) -> None:
    ruleset = three[2].ruleset
    with pytest.raises(NotAllowed):
        ruleset_withdraw(ruleset_id=ruleset.pk, actor=ana, reason="No.", proof=make_proof(ana))
    with pytest.raises(InvalidInput, match="Prove again"):
        ruleset_withdraw(ruleset_id=ruleset.pk, actor=sam, reason="No.")
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.SIGNED


def test_a_release_of_another_task_changes_no_channel_here(three: list[Release], task: Task, sam: User) -> None:
    other = make_task("ads")
    assert current_release(other, PRODUCTION) is None
    with pytest.raises(InvalidInput, match="no such channel"):
        release_publish(release_id=three[0].pk, channel="live", actor=sam, proof=make_proof(sam))


def test_a_token_is_kept_as_its_hash_only_and_revoked_once(task: Task, ada: User, ana: User) -> None:
    token, secret = token_create(task=task, name="student", actor=ada)
    assert secret.startswith("pldp_")
    assert secret not in str(vars(token))
    assert AuditEvent.objects.get(action="token.created").data == {"hint": token.hint, "scope": "prompt"}
    with pytest.raises(InvalidInput, match="active token of this name"):
        token_create(task=task, name=" student ", actor=ada)
    with pytest.raises(NotAllowed):
        token_revoke(token_id=token.pk, actor=ana)
    token_revoke(token_id=token.pk, actor=ada)
    with pytest.raises(InvalidTransition, match="revoked already"):
        token_revoke(token_id=token.pk, actor=ada)
    assert audit_actions(token) == ["token.created", "token.revoked"]
