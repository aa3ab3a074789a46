"""Comments on an instruction or on words of it: written, answered, changed by their writer, resolved and reopened."""

from collections.abc import Iterable
from hashlib import sha256

from django.db import transaction
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, Domain, Role, User
from pld_app.notifications import kind_register, notify
from rules.exceptions import InvalidTransition, Stale
from rules.mentions import Mentions, mentions_in
from rules.models import Comment, CommentMention, CommentTurn, CommentVersion, Instruction
from rules.selectors.review_guard import wording_withheld_from
from rules.services.refusals import database_refusals
from rules.services.review_input import comment_text, plain_newlines

WRITERS = (Role.REVIEWER, Role.SIGNATORY, Role.ADMIN)

kind_register(
    "comment.mentioned",
    label=gettext_lazy("You were named in a comment"),
    text=gettext_lazy("%(by)s names you in a comment on instruction %(number)s of %(task)s."),
)
kind_register(
    "comment.answered",
    label=gettext_lazy("Your comment was answered"),
    text=gettext_lazy("%(by)s answered in a thread of yours on instruction %(number)s of %(task)s."),
    mailed=False,
)


def comment_write(
    *, instruction_id: int, author: User, body: str, quote: str = "", start: int | None = None
) -> Comment:
    """Begin a thread on an instruction, or on the words `quote` of its present text.

    `start` says which place is meant where the words stand more than once (in characters from 0); else the one place
    is found. Raises InvalidInput for words that are not there, and NotAllowed while the wording is withheld.
    """
    words = comment_text(body)
    with database_refusals(), transaction.atomic():
        row = _instruction(instruction_id, author)
        revision = row.current_revision
        assert revision is not None
        place: dict[str, object] = {}
        if quote.strip():
            begins = _place_of(plain_newlines(quote), revision.text, start)
            place = {"start": begins[0], "end": begins[1], "quote": revision.text[begins[0] : begins[1]]}
        mentions = _mentions(words)
        made = Comment.objects.create(instruction=row, revision=revision, author=author, **place)
        _version(made, words, mentions, action="comment.written", number=1)
    return made


def comment_answer(*, comment_id: int, author: User, body: str) -> Comment:
    """Answer in an open thread; who wrote in it before is told."""
    words = comment_text(body)
    with database_refusals(), transaction.atomic():
        thread = _comment(comment_id)
        row = _instruction(thread.instruction_id, author)
        mentions = _mentions(words)
        assert row.current_revision is not None
        made = Comment.objects.create(
            instruction=row, revision=row.current_revision, author=author, parent_id=thread.pk
        )
        named = _version(made, words, mentions, action="comment.written", number=1)
        writers = User.objects.filter(pk__in=[thread.author_id, *thread.replies.values_list("author_id", flat=True)])
        _tell(writers.exclude(pk__in=[author.pk, *named]), "comment.answered", made)
    return made


def comment_change(*, comment_id: int, author: User, body: str, number: int) -> CommentVersion:
    """Put new words in place of one's own; `number` is the version that was changed. The old ones stay on record."""
    words = comment_text(body)
    with database_refusals(), transaction.atomic():
        row = _comment(comment_id)
        _instruction(row.instruction_id, author)
        if row.author_id != author.pk:
            raise NotAllowed(_("Only its writer changes a comment. Answer it instead."))
        latest = row.versions.order_by("-number")[0]
        if latest.number != number:
            raise Stale
        if latest.body == words:
            return latest
        before = set(latest.mentions.values_list("user_id", flat=True))
        _version(row, words, _mentions(words), action="comment.edited", number=number + 1, told=before)
    return row.versions.order_by("-number")[0]


def comment_resolve(*, comment_id: int, actor: User) -> CommentTurn:
    """Settle a thread: it no longer counts as open, and takes no answer until it is opened again."""
    return _turn(comment_id, actor, is_resolved=True)


def comment_reopen(*, comment_id: int, actor: User) -> CommentTurn:
    """Open a settled thread again."""
    return _turn(comment_id, actor, is_resolved=False)


def _turn(comment_id: int, actor: User, *, is_resolved: bool) -> CommentTurn:
    with database_refusals(), transaction.atomic():
        row = _comment(comment_id)
        _instruction(row.instruction_id, actor)
        if row.parent_id is not None:
            raise InvalidInput(_("A thread is resolved as a whole, by its first comment."))
        if row.is_resolved == is_resolved:
            raise InvalidTransition(_("Somebody was faster: this thread is already so."))
        event = _record(row, actor, "comment.resolved" if is_resolved else "comment.reopened")
        return CommentTurn.objects.create(comment=row, is_resolved=is_resolved, actor=actor, event=event)


def _comment(comment_id: int) -> Comment:
    """The comment, locked: answers, changes and turns of a thread come one after the other."""
    return Comment.objects.select_for_update().get(pk=comment_id)


def _instruction(instruction_id: int, author: User) -> Instruction:
    require_role(author, *WRITERS)
    row = Instruction.objects.select_related("task", "current_revision").get(pk=instruction_id)
    if wording_withheld_from(row, author):
        raise NotAllowed(_("Say first what the evidence shows; the wording and its comments open then."))
    return row


def _place_of(quote: str, text: str, start: int | None) -> tuple[int, int]:
    if start is not None and text[start : start + len(quote)] == quote:
        return start, start + len(quote)
    found = text.find(quote)
    if found < 0:
        raise InvalidInput(_("These words are not in the rule as it reads now. Copy them from it, or leave them out."))
    if text.find(quote, found + 1) >= 0:
        raise InvalidInput(_("These words stand there more than once. Copy a few more of the words around them."))
    return found, found + len(quote)


def _mentions(words: str) -> Mentions:
    people = {name.lower(): pk for pk, name in User.objects.filter(is_active=True).values_list("pk", "username")}
    found = mentions_in(words, people, Domain.values)
    if found.unknown:
        name, near = found.unknown[0]
        known = _(" Did you mean @%(near)s?") % {"near": near} if near else ""
        raise InvalidInput(_("Nobody is called @%(name)s here.") % {"name": name} + known)
    return found


def _version(
    row: Comment, words: str, mentions: Mentions, *, action: str, number: int, told: Iterable[int] = ()
) -> set[int]:
    """Write a version with who it names and tell those; returns the ids of everybody who was told now."""
    author = row.author
    event = _record(row, author, action, {"version": number, "body_sha256": sha256(words.encode()).hexdigest()})
    version = CommentVersion.objects.create(
        comment=row, number=number, author=author, body=words, pools=list(mentions.pools), event=event
    )
    CommentMention.objects.bulk_create([CommentMention(version=version, user_id=pk) for pk in mentions.user_ids])
    named = User.objects.filter(pk__in=mentions.user_ids) | User.objects.filter(
        role=Role.REVIEWER, domain__in=mentions.pools
    )
    people = [one for one in named.exclude(pk=author.pk) if one.pk not in set(told)]
    _tell(people, "comment.mentioned", row)
    return {one.pk for one in people}


def _tell(people: Iterable[User], kind: str, row: Comment) -> None:
    instruction = row.instruction
    url = reverse("instruction-comments", args=[instruction.task.slug, instruction.number])
    parts = {"by": str(row.author), "number": str(instruction.number), "task": instruction.task.name}
    notify(people, kind, url=f"{url}#comment-{row.pk}", **parts)


def _record(row: Comment, actor: User, action: str, data: dict[str, Json] | None = None) -> AuditEvent:
    facts: dict[str, Json] = {"instruction": row.instruction.number, **(data or {})}
    return audit_record(action, actor=actor, subject=row, data=facts, task_slug=row.instruction.task.slug)
