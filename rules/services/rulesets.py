"""Composing a ruleset, freezing it for sign-off, withdrawing it."""

from collections.abc import Iterable
from typing import Literal
from uuid import UUID

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.exceptions import Stale
from rules.hidden_text import hidden_in
from rules.models import Instruction, Ruleset, RulesetItem, RulesetStatus, Task
from rules.selectors import rulesets as selectors
from rules.services.prompt_sizes import prompt_size_ask
from rules.services.refusals import database_refusals
from rules.transitions import ruleset_move

type Start = Literal["approved", "previous"]


def ruleset_lock(ruleset_id: int) -> Ruleset:
    """The row, locked until the transaction ends, with its task."""
    return Ruleset.objects.select_for_update(of=("self",)).select_related("task").get(pk=ruleset_id)


@database_refusals()
@transaction.atomic
def ruleset_create(
    *, task: Task, composer: User, name: str = "", start: Start = "approved", form_key: UUID | None = None
) -> Ruleset:
    """Open a draft with every approved instruction: topic by topic, or in the order of the previous ruleset first.

    The same `form_key` by the same person gives the draft it gave before: a form sent twice is one action.
    Raises InvalidInput when nothing is approved yet, NotAllowed for anyone but a reviewer.
    """
    require_role(composer, Role.REVIEWER)
    # Numbers have no gaps and no doubles: one draft at a time is numbered.
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    if form_key is not None and (made := task.rulesets.filter(form_key=form_key, composed_by=composer).first()):
        return made
    approved = list(selectors.publishable(task))
    if not approved:
        raise InvalidInput(_("No instruction is approved yet. Approve some in the review queue first."))
    previous = task.rulesets.order_by("-number").first()
    number = 1 + (previous.number if previous else 0)
    ruleset = Ruleset(task=task, number=number, name=name.strip() or f"Ruleset {number}", composed_by=composer)
    ruleset.form_key = form_key
    ruleset.full_clean(exclude={"frozen_at"})
    ruleset.save()
    ordered = _in_previous_order(approved, previous) if start == "previous" else _by_topic(approved)
    RulesetItem.objects.bulk_create(
        RulesetItem(
            ruleset=ruleset, position=place, instruction=instruction, revision_id=_approved_revision(instruction)
        )
        for place, instruction in enumerate(ordered, start=1)
    )
    data: dict[str, Json] = {"instructions": len(ordered), "start": start}
    audit_record("ruleset.created", actor=composer, subject=ruleset, task_slug=task.slug, data=data)
    prompt_size_ask(ruleset)
    return ruleset


def _approved_revision(instruction: Instruction) -> int:
    if instruction.approved_revision_id is None:
        raise InvalidInput(_("%(number)s is not approved.") % {"number": instruction})
    return instruction.approved_revision_id


def _by_topic(approved: Iterable[Instruction]) -> list[Instruction]:
    """Topics in the order of their first number, each together."""
    ordered = sorted(approved, key=lambda one: one.number)
    first: dict[str, int] = {}
    for instruction in ordered:
        first.setdefault(instruction.topic, instruction.number)
    return sorted(ordered, key=lambda one: (first[one.topic], one.number))


def _in_previous_order(approved: Iterable[Instruction], previous: Ruleset | None) -> list[Instruction]:
    """As the previous ruleset had them; what it lacks follows, topic by topic."""
    places = dict(previous.items.values_list("instruction_id", "position")) if previous else {}
    by_topic = _by_topic(approved)
    return sorted(by_topic, key=lambda one: places.get(one.pk, len(places) + 1))


def _draft_lock(ruleset_id: int, editor: User, version: int) -> Ruleset:
    """The locked draft; raises Stale when it is no longer the one that was shown."""
    require_role(editor, Role.REVIEWER)
    ruleset = ruleset_lock(ruleset_id)
    if ruleset.status != RulesetStatus.DRAFT:
        raise Stale(_("This ruleset was frozen or withdrawn while you worked on it. Reload to see it."))
    if ruleset.version != version:
        raise Stale
    return ruleset


def _draft_changed(ruleset: Ruleset, editor: User, data: dict[str, Json]) -> Ruleset:
    """Count the change and name its editor as composer: who edited last does not sign."""
    ruleset.version += 1
    ruleset.composed_by = editor
    ruleset.save(update_fields=["version", "composed_by"])
    audit_record("ruleset.changed", actor=editor, subject=ruleset, task_slug=ruleset.task.slug, data=data)
    prompt_size_ask(ruleset)
    return ruleset


def _renumber(items: list[RulesetItem]) -> None:
    """Places 1..n in this order; the uniqueness of places is checked at commit."""
    moved = [item for place, item in enumerate(items, start=1) if item.position != place]
    for place, item in enumerate(items, start=1):
        item.position = place
    RulesetItem.objects.bulk_update(moved, ["position"])


def _item_of(items: Iterable[RulesetItem], item_id: int) -> RulesetItem:
    for item in items:
        if item.pk == item_id:
            return item
    raise Stale(_("This instruction is no longer in the ruleset. Reload to see it."))


@database_refusals()
@transaction.atomic
def ruleset_item_add(*, ruleset_id: int, instruction_id: int, editor: User, version: int) -> Ruleset:
    """Put an approved instruction at the end of a draft."""
    ruleset = _draft_lock(ruleset_id, editor, version)
    instruction = selectors.publishable(ruleset.task).filter(pk=instruction_id).first()
    if instruction is None:
        raise Stale(_("This instruction is not approved. Only approved text enters a ruleset."))
    last = ruleset.items.aggregate(last=Max("position"))["last"] or 0
    revision_id = _approved_revision(instruction)
    ruleset.items.create(position=last + 1, instruction=instruction, revision_id=revision_id)
    return _draft_changed(ruleset, editor, {"added": instruction.number})


@database_refusals()
@transaction.atomic
def ruleset_item_remove(*, ruleset_id: int, item_id: int, editor: User, version: int) -> Ruleset:
    """Take an instruction out of a draft; the others close up."""
    ruleset = _draft_lock(ruleset_id, editor, version)
    items = list(ruleset.items.select_related("instruction").order_by("position"))
    gone = _item_of(items, item_id)
    gone.delete()
    _renumber([item for item in items if item is not gone])
    return _draft_changed(ruleset, editor, {"removed": gone.instruction.number})


@database_refusals()
@transaction.atomic
def ruleset_item_move(*, ruleset_id: int, item_id: int, to: int, editor: User, version: int) -> Ruleset:
    """Put an instruction at place `to` (from 1; past an end means that end)."""
    ruleset = _draft_lock(ruleset_id, editor, version)
    items = list(ruleset.items.select_related("instruction").order_by("position"))
    item = _item_of(items, item_id)
    was = item.position
    items.remove(item)
    items.insert(min(max(to, 1), len(items) + 1) - 1, item)
    _renumber(items)
    return _draft_changed(ruleset, editor, {"moved": item.instruction.number, "from": was, "to": item.position})


@database_refusals()
@transaction.atomic
def ruleset_refresh(*, ruleset_id: int, editor: User, version: int) -> Ruleset:
    """Bring a draft up to date: newly approved texts take the place of the old, what is no longer approved goes."""
    ruleset = _draft_lock(ruleset_id, editor, version)
    items = selectors.ruleset_items(ruleset)
    outdated = [item for item in items if not selectors.is_current(item)]
    renewed = {item.pk: _renewed(item) for item in outdated if item.instruction.approved_revision_id is not None}
    RulesetItem.objects.filter(pk__in=[item.pk for item in outdated]).delete()
    # An item keeps its text, so a newer text is a new item in the old one's place.
    RulesetItem.objects.bulk_create(renewed.values())
    _renumber([renewed.get(item.pk, item) for item in items if item.pk in renewed or item not in outdated])
    data: dict[str, Json] = {
        "updated": [item.instruction.number for item in outdated if item.pk in renewed],
        "removed": [item.instruction.number for item in outdated if item.pk not in renewed],
    }
    return _draft_changed(ruleset, editor, data)


def _renewed(item: RulesetItem) -> RulesetItem:
    return RulesetItem(
        ruleset_id=item.ruleset_id,
        position=item.position,
        instruction=item.instruction,
        revision_id=_approved_revision(item.instruction),
    )


@database_refusals()
@transaction.atomic
def ruleset_freeze(*, ruleset_id: int, editor: User, version: int) -> Ruleset:
    """Fix order, texts and policy as a canonical manifest and open the sign-off.

    Raises Stale when the draft changed or holds a text that is no longer approved, InvalidInput when it is empty.
    """
    ruleset = _draft_lock(ruleset_id, editor, version)
    items = selectors.ruleset_items(ruleset)
    _require_freezable(items)
    try:
        compiled = selectors.ruleset_compile(ruleset, items)
    except ValueError as error:
        raise InvalidInput(_("This cannot be frozen: %(why)s.") % {"why": error}) from error
    _require_visible(ruleset.name + compiled.prompt)
    ruleset_move(ruleset, RulesetStatus.IN_SIGN_OFF)
    ruleset.manifest, ruleset.manifest_sha256 = compiled.manifest, compiled.manifest_sha256
    ruleset.prompt, ruleset.prompt_sha256 = compiled.prompt, compiled.prompt_sha256
    ruleset.version += 1
    ruleset.save(update_fields=["status", "manifest", "manifest_sha256", "prompt", "prompt_sha256", "version"])
    # The database writes the time of freezing.
    ruleset.refresh_from_db(fields=["frozen_at"])
    data: dict[str, Json] = {
        "manifest_sha256": compiled.manifest_sha256,
        "prompt_sha256": compiled.prompt_sha256,
        "instructions": len(items),
    }
    audit_record("ruleset.frozen", actor=editor, subject=ruleset, task_slug=ruleset.task.slug, data=data)
    prompt_size_ask(ruleset)
    return ruleset


def _require_visible(text: str) -> None:
    """Nobody can sign for what nobody sees; the words of an administrator come here unreviewed."""
    hidden = hidden_in(text)
    if hidden:
        message = _(
            "There are invisible characters in the name or the prompt (%(codes)s). Mend the instruction that holds "
            "them, or have an administrator mend the task's settings, then freeze again."
        )
        raise InvalidInput(message % {"codes": ", ".join(hidden[:5])})


def _require_freezable(items: list[RulesetItem]) -> None:
    if not items:
        raise InvalidInput(_("This ruleset is empty. Add approved instructions before you freeze it."))
    outdated = [str(item.instruction) for item in items if not selectors.is_current(item)]
    if outdated:
        numbers = ", ".join(outdated)
        raise Stale(
            _("%(numbers)s no longer approved as shown. Bring the draft up to date, look at it and freeze again.")
            % {"numbers": numbers}
        )


def may_withdraw(ruleset: Ruleset, actor: User) -> bool:
    """A reviewer takes back what is not signed yet, a signatory what is frozen or signed."""
    allowed = {
        Role.REVIEWER: {RulesetStatus.DRAFT, RulesetStatus.IN_SIGN_OFF},
        Role.SIGNATORY: {RulesetStatus.IN_SIGN_OFF, RulesetStatus.SIGNED},
    }
    return actor.is_active and ruleset.status in allowed.get(Role(actor.role), set())
