"""What the database's guards refuse, in words for a person: a refusal is never an error page."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import IntegrityError, OperationalError
from django.utils.translation import gettext_lazy as _

from pld_app.errors import InvalidInput, Message, NotAllowed, Refusal, WrongState
from rules.exceptions import Stale, refusal_from

_NO_LONGER_APPROVED: Message = _(
    "An instruction of this ruleset is no longer approved as it stands here. Bring the draft up to date and look again."
)
_WORDS: dict[str, tuple[type[Refusal], Message]] = {
    "only the approved text of an approved instruction": (Stale, _NO_LONGER_APPROVED),
    "every text in a manifest is an approved one": (Stale, _NO_LONGER_APPROVED),
    "the manifest must list exactly": (Stale, _NO_LONGER_APPROVED),
    "an instruction of this ruleset is no longer approved": (
        WrongState,
        _("An instruction of this ruleset is no longer approved, so it cannot be released. Compose a new ruleset."),
    ),
    "the manifest must carry the sign-off policy": (
        Stale,
        _("The sign-off policy of the task changed while you froze this. Look at it and freeze again."),
    ),
    "the manifest must carry the frame": (
        Stale,
        _("The settings of the task changed while you froze this. Look at the prompt and freeze again."),
    ),
    "only a draft ruleset takes": (Stale, _("This ruleset was frozen while you worked on it. Reload to see it.")),
    "a frozen ruleset never changes": (Stale, _("This ruleset was frozen while you worked on it. Reload to see it.")),
    "this ruleset is not in sign-off": (Stale, _("This ruleset is no longer in sign-off. Reload to see why.")),
    "the signature is over another manifest": (
        Stale,
        _("You were shown another manifest. Reload and read this one."),
    ),
    "only who worked on a ruleset": (NotAllowed, _("Only who composed or worded it signs as its author.")),
    "this account may not sign": (NotAllowed, _("Your account may not sign this ruleset.")),
    "who composed or edited a ruleset does not publish": (
        NotAllowed,
        _("You composed or edited this ruleset, so another signatory must publish it."),
    ),
    "who signed a ruleset does not publish": (
        NotAllowed,
        _("You signed this ruleset, and the sign-off policy asks for a publisher who did not sign it."),
    ),
    "who started the mining": (NotAllowed, _("You started the mining it comes from, so others must sign it.")),
    "open every edited or conflicting": (
        InvalidInput,
        _("Open every edited or conflicting instruction on the signing page before you sign."),
    ),
    "the sign-off policy changed since": (
        WrongState,
        _("The sign-off policy changed since this was frozen. Compose a new ruleset and freeze it under the new one."),
    ),
    "the sign-off policy changes by": (
        WrongState,
        _("The sign-off policy is changed on its own page, where a second person confirms it."),
    ),
    "a gate is not shown": (
        WrongState,
        _("A gate is not shown to be passed, so this is not published. The release's page says which one and why."),
    ),
    "the re-validation of production": (
        WrongState,
        _("The release in production is overdue for re-validation. Re-evaluate it, or sign an exception."),
    ),
    "proposed gates wait": (Stale, _("A proposal waits for its decision already. Reload to see it.")),
    "versions of gates": (Stale, _("Another proposal was faster. Reload to see it.")),
    "nobody confirms their own gates": (
        NotAllowed,
        _("You proposed these gates: a second administrator or a signatory confirms them."),
    ),
    "a floor is for a label": (InvalidInput, _("A floor is for a label of the task, above 0 and at most 1.")),
    "an exception is from the gates": (
        Stale,
        _("The gates changed since you opened this page. Look at how the release stands now."),
    ),
    "who composed or edited a ruleset signs no exception": (
        NotAllowed,
        _("You composed or edited this ruleset, so another signatory signs an exception for it."),
    ),
    "an exception expires": (InvalidInput, _("An exception expires at a time to come, at most 90 days off.")),
    "a proposed policy waits": (Stale, _("A proposal waits for its decision already. Reload to see it.")),
    "versions of a policy": (Stale, _("Another proposal was faster. Reload to see it.")),
    "nobody confirms their own": (
        NotAllowed,
        _("You proposed this: a second administrator or a signatory confirms it."),
    ),
    "who composed or edited a ruleset": (NotAllowed, _("You composed or edited this ruleset, so others must sign it.")),
    "a colleague is working on this instruction": (
        WrongState,
        _("A colleague is working on this instruction. Take it over, or go on to the next one."),
    ),
    "re-authenticate": (
        WrongState,
        _("The proof that it is you was too old, used or for something else. Prove it again."),
    ),
    "only a signed ruleset is released": (WrongState, _("Only a signed ruleset can be released.")),
    "two reviewers decide on this": (
        WrongState,
        _("Two reviewers decide on this instruction. Reload the card to see how it stands."),
    ),
    "this queue is paused": (
        NotAllowed,
        _("Your queue is paused. An administrator lifts the pause after talking with you."),
    ),
    "a current training record": (
        NotAllowed,
        _("You have no current training record for this domain. Ask an administrator for one."),
    ),
    "the notice on habit is read first": (
        NotAllowed,
        _("Read the notice above the queue first: it is asked once a quarter, before the first decision."),
    ),
    "training is recorded for": (
        InvalidInput,
        _("Training is recorded for reviewers whose account is open."),
    ),
    "a training record ends today": (InvalidInput, _("Choose a day to come.")),
    "only an active administrator keeps training": (NotAllowed, _("Only an administrator keeps training records.")),
    "this double review is over": (Stale, _("Others have decided on this in the meantime. Reload to see how.")),
    "open the card before": (WrongState, _("Open the card, read it, and then approve it with what is like it.")),
    "only near-duplicates of the opened card": (
        WrongState,
        _("It is no near-duplicate of the card you opened any more: decide on its own card."),
    ),
    "a batch is undone once": (WrongState, _("This has been taken back already.")),
    "the text of a check item": (
        NotAllowed,
        _("This text is that of a check item with a wrong answer, so it cannot enter a ruleset. Word the rule anew."),
    ),
    "an emergency stop holds": (
        WrongState,
        _("An emergency stop holds this release. Somebody lifts it first, or publish another release."),
    ),
    "a legal hold covers this": (
        WrongState,
        _("A legal hold covers this. It is released first, or the text stays."),
    ),
    "a second person decides this": (
        NotAllowed,
        _("This was your own act: another administrator or a signatory decides on it."),
    ),
    "a proposed retention waits": (Stale, _("A proposal waits for its decision already. Reload to see it.")),
    "there is no such text": (Stale, _("A text was erased or changed meanwhile. Look again at what is to be erased.")),
    "what this erasure names has changed": (
        Stale,
        _("Something of it was erased or changed meanwhile. Refuse it, and ask for an erasure of what is left."),
    ),
    "what is to be pruned changed": (Stale, _("What is past its period changed meanwhile. Look again.")),
    "this is stopped already": (WrongState, _("This is stopped already. Reload to see it.")),
    "a stop is of a release": (InvalidInput, _("Choose a release or an instruction of this task to stop.")),
    "this stop was lifted": (WrongState, _("This stop was lifted already. Reload to see it.")),
    "a second person signs": (
        NotAllowed,
        _("You made this stop: a second person signs under it or lifts it."),
    ),
    "a frozen ruleset is withdrawn": (WrongState, _("A frozen ruleset is withdrawn on its page, by a signed act.")),
    "this ruleset cannot be withdrawn": (Stale, _("This ruleset changed meanwhile. Reload to see how it stands.")),
    "a schedule is for a time": (InvalidInput, _("Choose a time to come, or publish now.")),
    "this schedule is settled": (
        WrongState,
        _("This schedule was published, cancelled or given up already. Reload to see it."),
    ),
    "its time has not come": (WrongState, _("Its time has not come.")),
    "its time is over": (WrongState, _("Its time is over already.")),
    "a signer is no longer active": (
        WrongState,
        _("Somebody who signed it is no longer active in the role they signed in."),
    ),
    "the channel moved since": (WrongState, _("The channel was moved since it was scheduled.")),
    "only an active signatory": (NotAllowed, _("Only an active signatory may do this.")),
    "the ruleset of this release was withdrawn": (
        WrongState,
        _("The ruleset of this release was withdrawn. Publish another release."),
    ),
    "a release goes to staging before production": (
        WrongState,
        _("A release goes to staging before production. Publish it to staging first."),
    ),
    "a resolved thread takes no reply": (
        WrongState,
        _("This thread was resolved meanwhile. Open it again to answer; your words are still in the form."),
    ),
    "the thread is already so": (WrongState, _("Somebody was faster: this thread is already so.")),
    "the audit log does not match its copy outside": (
        WrongState,
        _(
            "The audit log does not match its copy outside, as after the restore of an older backup. Nothing is "
            "published until the alarm is cleared: ask who runs this installation."
        ),
    ),
    "a rollback goes to a release that was in this channel": (
        WrongState,
        _("You can only roll back to a release that was in this channel before."),
    ),
}
_UNIQUE: dict[str, Message] = {
    "signature_one_per_person": _("You have already signed this ruleset."),
    "opinion_one_per_person": _("You have already decided on this; others decide now."),
    "kept_pair_once": _("Both are kept already."),
    "ruleset_item_once": _("This instruction is already in the ruleset. Reload to see it."),
    "rules_release_ruleset_id_key": _("This ruleset has been released already. Reload to see its release."),
}
_BUSY = frozenset({"40P01", "55P03"})  # deadlock_detected, lock_not_available


@contextmanager
def database_refusals() -> Iterator[None]:
    """Turn what the database refuses by rule into a `Refusal`; any other error stays what it is.

    Stands around the transaction, not inside it: what was written before the refusal must be rolled back first.
    """
    try:
        yield
    except (IntegrityError, OperationalError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(error: IntegrityError | OperationalError) -> Refusal | None:
    cause = error.__cause__
    if getattr(cause, "sqlstate", "") in _BUSY:
        return WrongState(_("Someone else is changing this at this moment. Try again."))
    if not isinstance(error, IntegrityError):
        return None
    unique = _UNIQUE.get(getattr(getattr(cause, "diag", None), "constraint_name", None) or "")
    if unique is not None:
        return WrongState(unique)
    said = refusal_from(error)
    if said is None:
        return None
    for start, (kind, words) in _WORDS.items():
        if said.startswith(start):
            return kind(words)
    return WrongState(_("This was refused: %(why)s.") % {"why": said})
