"""Recording what stands against a release: once each, with its event, told to its signers and the administrators."""

from django.db import transaction
from django.utils.translation import gettext_lazy

from pld_app.audit import audit_record
from pld_app.models import Role, User
from pld_app.notifications import kind_register, notify
from rules.models import ChannelName, FlagKind, GateVerdict, Release, ReleaseFlag, Task
from rules.selectors.flags import Flag, release_flags
from rules.selectors.gates import gates_in_force
from rules.selectors.publishing import current_release

kind_register(
    "release.flagged",
    label=gettext_lazy("Something stands against a release"),
    text=gettext_lazy("%(release)s of %(task)s: %(what)s. %(why)s"),
)


def flags_record(task: Task) -> int:
    """Look at the releases that are served and at those an evaluation failed a gate of; returns how much was new."""
    new = 0
    for release in _looked_at(task):
        known = set(release.flags.values_list("kind", "about"))
        new += sum(_record(release, flag) for flag in release_flags(release) if (flag.kind, flag.about) not in known)
    return new


def _looked_at(task: Task) -> list[Release]:
    served = {one.pk: one for channel in ChannelName if (one := current_release(task, channel)) is not None}
    failed = GateVerdict.objects.filter(policy=gates_in_force(task), passed=False).values("ruleset")
    judged = Release.objects.filter(ruleset__in=failed, task=task).exclude(pk__in=served)
    return [*served.values(), *judged.select_related("task", "ruleset")]


@transaction.atomic
def _record(release: Release, flag: Flag) -> bool:
    # The task's row is the lock: of two workers one finds that the other told it.
    task = Task.objects.select_for_update(no_key=True).get(pk=release.task_id)
    if ReleaseFlag.objects.filter(release=release, kind=flag.kind, about=flag.about).exists():
        return False
    words = flag.words[:500]
    event = audit_record(
        "release.flagged",
        actor=None,
        subject=release,
        task_slug=task.slug,
        data={"kind": flag.kind.value, "about": flag.about, "why": words},
    )
    ReleaseFlag.objects.create(release=release, kind=flag.kind, about=flag.about, words=words, event=event)
    signers = User.objects.filter(pk__in=release.ruleset.signatures.values("signer"))
    admins = User.objects.filter(role=Role.ADMIN, is_active=True)
    notify(
        [*signers, *admins],
        "release.flagged",
        url=f"/tasks/{task.slug}/releases/{release.version}/",
        release=str(release),
        task=task.name,
        what=str(FlagKind(flag.kind).label),
        why=words,
    )
    return True
