"""How a task's fields become a question: a new version for each change."""

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from evaluation.answers import template_problem
from evaluation.models import InputTemplate
from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.hidden_text import hidden_in
from rules.models import Task

MAX_TEMPLATE_CHARS = 8_000


def require_admin(user: User | None) -> None:
    """`user` None is the command line. Raises NotAllowed for anyone else but an active administrator."""
    if user is not None:
        require_role(user, Role.ADMIN)


def input_template_of(task: Task) -> InputTemplate:
    """The template that counts now; version 0, one JSON object, when none was ever written."""
    newest = task.input_templates.order_by("-version").first()
    return newest or InputTemplate(task=task, version=0, text="", abstention_label="")


@transaction.atomic
def input_template_save(*, task: Task, user: User | None, text: str, abstention_label: str) -> InputTemplate:
    """A new version for runs from now on; runs made before keep theirs. Unchanged text makes no version.

    Raises InvalidInput for a template that leaves out a field or names another, and for invisible characters.
    """
    require_admin(user)
    text, abstention_label = text.replace("\r\n", "\n").strip(), abstention_label.strip()
    _check(task, text, abstention_label)
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    standing = input_template_of(task)
    if (standing.text, standing.abstention_label) == (text, abstention_label):
        return standing
    last = task.input_templates.aggregate(last=Max("version"))["last"] or 0
    template = InputTemplate.objects.create(
        task=task, version=last + 1, text=text, abstention_label=abstention_label, created_by=user
    )
    data: dict[str, Json] = {
        "version": template.version,
        "text_sha256": sha256_hex(text),
        "abstention_label": abstention_label,
    }
    audit_record("input_template.saved", actor=user, subject=template, task_slug=task.slug, data=data)
    return template


def _check(task: Task, text: str, abstention_label: str) -> None:
    if len(text) > MAX_TEMPLATE_CHARS:
        raise InvalidInput(_("The template is longer than %(n)d characters. Shorten it.") % {"n": MAX_TEMPLATE_CHARS})
    problem = template_problem(text, task.input_fields) if text else ""
    if problem:
        raise InvalidInput(_("The template cannot be used: %(why)s") % {"why": problem})
    hidden = hidden_in(text + abstention_label)
    if hidden:
        message = _("There are invisible characters in it (%(codes)s). Take them out.")
        raise InvalidInput(message % {"codes": ", ".join(hidden[:5])})
    if len(abstention_label) > 60:
        raise InvalidInput(_("The answer for “I do not know” is longer than 60 characters. Shorten it."))
    if abstention_label in task.labels:
        raise InvalidInput(_("The answer for “I do not know” must not be one of the task's labels."))
