"""What stands against a release now. Nothing here changes what is served: people decide that."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.utils import timezone
from django.utils.translation import gettext as _

from rules.hooks import Change, evidence_changes
from rules.models import ChannelName, FlagKind, GatePolicy, Release, Ruleset
from rules.selectors.gates import Standing, gates_in_force, standing, validation
from rules.selectors.publishing import current_release


@dataclass(frozen=True)
class Flag:
    """`about` names the thing it is about, as `ReleaseFlag` keeps it; `url` may be empty."""

    kind: FlagKind
    about: str
    words: str
    url: str = ""


def release_flags(release: Release) -> list[Flag]:
    """Everything that stands against a release, the gravest first."""
    release.ruleset.task = release.task
    policy = gates_in_force(release.task)
    against = [*_gates(release, policy), *_overdue(release, policy)] if policy else []
    return [*against, *changed_evidence(release.ruleset)]


def _gates(release: Release, policy: GatePolicy) -> Iterator[Flag]:
    how = standing(release.ruleset, policy)
    if how is None:
        return
    if how.verdict is not None and not how.verdict.passed:
        failed = [row.words for row in how.rows if row.outcome == "failed"]
        unshown = [row.words for row in how.rows if row.outcome == "not_shown"]
        parts = []
        if failed:
            parts.append(_("Not passed: %(gates)s.") % {"gates": "; ".join(failed)})
        if unshown:
            parts.append(_("Not shown: %(gates)s.") % {"gates": "; ".join(unshown)})
        words = " ".join([_("Evaluation %(n)d.") % {"n": how.verdict.run_number}, *parts])
        yield Flag(FlagKind.GATE_FAILED, f"verdict:{how.verdict.pk}", words)
    if not how.passes and how.exception is None:
        yield from _exception_ended(release, how)


def _exception_ended(release: Release, how: Standing) -> Iterator[Flag]:
    ended = (
        how.policy.exceptions.filter(release=release, expires_at__lte=timezone.now()).order_by("-expires_at").first()
    )
    if ended is not None:
        day = f"{ended.expires_at:%Y-%m-%d %H:%M}"
        words = _("Its exception from the gates expired on %(day)s UTC. %(why)s") % {"day": day, "why": how.why_not}
        yield Flag(FlagKind.EXCEPTION_ENDED, f"exception:{ended.pk}", words)


def _overdue(release: Release, policy: GatePolicy) -> Iterator[Flag]:
    due = validation(release.task, policy)
    if due is None or not due.is_overdue or current_release(release.task, ChannelName.PRODUCTION) != release:
        return
    words = _("Due since %(due)s. From %(blocked)s on no other release is published before it is re-evaluated.") % {
        "due": f"{due.due:%Y-%m-%d}",
        "blocked": f"{due.blocked_from:%Y-%m-%d}",
    }
    yield Flag(FlagKind.OVERDUE, f"due:{due.due:%Y-%m-%dT%H:%M:%S}", words)


def changes_since_signed(ruleset: Ruleset) -> list[Change]:
    """What the newest signature over a ruleset rested on and is another one since; nothing without a signature."""
    newest = ruleset.signatures.order_by("-at").values_list("at", flat=True).first()
    return evidence_changes(ruleset, newest) if newest is not None else []


def changed_evidence(ruleset: Ruleset) -> list[Flag]:
    return [Flag(FlagKind.EVIDENCE_CHANGED, one.key[:160], one.what, one.url) for one in changes_since_signed(ruleset)]
