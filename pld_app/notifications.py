"""Messages to people: an inbox for each, and by e-mail when they want it and the installation can.

A service calls `notify` in its own transaction. A kind is registered once with its words; an e-mail carries the kind's
label and the address of the page, never the words: no text of a rule leaves the installation by mail.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models.functions import Now
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.jobs import JobResult, Lease, job_enqueue
from pld_app.models import MailChoice, Notification, User

log = structlog.get_logger(__name__)
JOB_KIND = "notification.mail"


@dataclass(frozen=True)
class Kind:
    """A kind of message: `label` stands in lists, preferences and the mail's subject, `text` has %(part)s places."""

    name: str
    label: str | Promise
    text: str | Promise
    mailed: bool = True
    """Whether it goes by e-mail too when the person has chosen nothing."""

    def words(self, parts: Mapping[str, object]) -> str:
        try:
            return str(self.text) % parts
        except (KeyError, TypeError, ValueError):
            return str(self.label)  # words of a later version with other places


_KINDS: dict[str, Kind] = {}


def kind_register(name: str, *, label: str | Promise, text: str | Promise, mailed: bool = True) -> None:
    """Register a kind of message; called at import of the module whose service sends it."""
    _KINDS[name] = Kind(name, label, text, mailed)


def kind_of(name: str) -> Kind:
    """The kind, or a bare one for a name that only another version of the program knows."""
    return _KINDS.get(name, Kind(name, name, name))


def kinds() -> list[Kind]:
    """All kinds by label, for the page of preferences."""
    return sorted(_KINDS.values(), key=lambda kind: str(kind.label))


kind_register(
    "signing.locked",
    label=gettext_lazy("Signing was locked"),
    text=gettext_lazy(
        "Five wrong proofs of identity within 15 minutes: signing is locked for %(name)s until %(until)s UTC."
    ),
)
kind_register(
    "factor.reset",
    label=gettext_lazy("Second factors were reset"),
    text=gettext_lazy("%(by)s removed the authenticator app, passkeys and recovery codes of your account."),
)
kind_register(
    "factor.changed",
    label=gettext_lazy("A way to prove it is you was changed"),
    text=gettext_lazy("On your account: %(what)s. If it was not you, tell an administrator at once."),
)
kind_register(
    "role.changed",
    label=gettext_lazy("Your role was changed"),
    text=gettext_lazy("%(by)s changed your role from %(before)s to %(after)s. Your sessions have ended."),
)


def notify(users: Iterable[User], kind: str, *, url: str = "", **parts: str) -> list[Notification]:
    """Put a message into each person's inbox, in the caller's transaction; mails go out by jobs after it.

    `url` is a path of this site; `parts` fill the places of the kind's text. People twice in `users` get it once,
    closed accounts not at all.
    """
    if kind not in _KINDS:
        raise LookupError(f"No kind of message is registered as {kind}.")
    people = {user.pk: user for user in users if user.is_active}
    choices = dict(MailChoice.objects.filter(kind=kind, user__in=people).values_list("user_id", "wanted"))
    made = Notification.objects.bulk_create(
        [Notification(user=user, kind=kind, parts=parts, url=url) for user in people.values()]
    )
    for one in made:
        if settings.MAIL_CONFIGURED and people[one.user_id].email and choices.get(one.user_id, kind_of(kind).mailed):
            job_enqueue(kind=JOB_KIND, subject_id=one.pk, key=f"{JOB_KIND}:{one.pk}")
    return made


def mail_send(notification_id: int, lease: Lease) -> JobResult:
    """Send one message by e-mail, once; a crash between sending and noting it repeats the same Message-ID."""
    note = Notification.objects.select_related("user").get(pk=notification_id)
    if note.mailed_at is not None or not note.user.is_active or not note.user.email:
        return JobResult.DONE
    where = f"{settings.PUBLIC_URL}{note.url or '/inbox/'}"
    body = _("%(label)s. Sign in to read it:\n\n%(where)s\n\nYou can choose what comes by e-mail in your inbox.\n")
    EmailMessage(
        subject=f"{settings.SITE_NAME}: {note.label}",
        body=body % {"label": note.label, "where": where},
        to=[note.user.email],
        headers={"Message-ID": f"<notification-{note.pk}@{settings.MAIL_DOMAIN}>", "Auto-Submitted": "auto-generated"},
    ).send()
    lease.check()
    Notification.objects.filter(pk=note.pk, mailed_at__isnull=True).update(mailed_at=Now(), mail_error="")
    return JobResult.DONE


def mail_failed(notification_id: int, error: str) -> None:
    """The message stays in the inbox, which says that the mail did not go out."""
    Notification.objects.filter(pk=notification_id).update(mail_error=error[:200])


@transaction.atomic
def notifications_read(*, user: User, notification_id: int | None = None) -> int:
    """Mark one message of this person, or all of them, as read; returns how many were unread. No audit event: it is
    nobody else's business."""
    mine = Notification.objects.filter(user=user, read_at__isnull=True)
    if notification_id is not None:
        mine = mine.filter(pk=notification_id)
    return mine.update(read_at=Now())


def unread_count(user: User) -> int:
    return Notification.objects.filter(user=user, read_at__isnull=True).count()


@transaction.atomic
def mail_choices_set(*, user: User, wanted: Mapping[str, bool]) -> None:
    """Keep which kinds this person wants by e-mail too; unknown kinds are left out."""
    rows = [MailChoice(user=user, kind=name, wanted=choice) for name, choice in wanted.items() if name in _KINDS]
    MailChoice.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["user", "kind"], update_fields=["wanted"]
    )


def mail_choices(user: User) -> list[tuple[Kind, bool]]:
    """Every kind with whether this person gets it by e-mail."""
    chosen = dict(MailChoice.objects.filter(user=user).values_list("kind", "wanted"))
    return [(kind, chosen.get(kind.name, kind.mailed)) for kind in kinds()]
