"""Comments: on the card, on a page of their own for each instruction, and as a list of the task."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from rules.models import Comment, Instruction, Task
from rules.selectors import comments as selectors
from rules.selectors import review as review_selectors
from rules.selectors.review_guard import figures_open, wording_withheld_from
from rules.services import comments as services
from rules.views.review_links import card_url, view_of


@roles_required()
@require_GET
def comment_list(request: UserRequest, slug: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    chosen = request.GET.get("tab", "")
    tab = selectors.CommentTab(chosen) if chosen in selectors.CommentTab.values else selectors.CommentTab.OPEN
    page, rows = selectors.comment_page(task, tab, request.user, request.GET.get("page"))
    context = {"task": task, "tab": tab, "page": page, "rows": rows}
    return render(request, "rules/comment_list.html", context | {"tabs": selectors.comment_counts(task, request.user)})


@roles_required()
@require_GET
def instruction_comments(request: UserRequest, slug: str, number: int) -> HttpResponse:
    instruction = review_selectors.instruction_get(slug, number)
    if wording_withheld_from(instruction, request.user):
        messages.info(request, _("Say first what the evidence shows; the wording and its comments open then."))
        return redirect(card_url(instruction.task, number, view_of(request, instruction.task)))
    return _page(request, instruction)


@roles_required(*services.WRITERS)
@require_POST
def comment_new(request: UserRequest, slug: str, number: int) -> HttpResponse:
    sent = request.POST
    start = sent.get("start", "")
    place = int(start) if start.isascii() and start.isdigit() and len(start) < 9 else None
    instruction = review_selectors.instruction_get(slug, number)
    return _act(
        request,
        instruction,
        "new",
        lambda: services.comment_write(
            instruction_id=instruction.pk,
            author=request.user,
            body=sent.get("body", ""),
            quote=sent.get("quote", ""),
            start=place,
        ),
    )


@roles_required(*services.WRITERS)
@require_POST
def comment_answer(request: UserRequest, slug: str, number: int, pk: int) -> HttpResponse:
    instruction, comment = _found(slug, number, pk)
    return _act(
        request,
        instruction,
        f"answer-{pk}",
        lambda: services.comment_answer(comment_id=comment.pk, author=request.user, body=request.POST.get("body", "")),
    )


@roles_required(*services.WRITERS)
@require_POST
def comment_change(request: UserRequest, slug: str, number: int, pk: int) -> HttpResponse:
    instruction, comment = _found(slug, number, pk)
    version = request.POST.get("number", "")
    if not (version.isascii() and version.isdigit() and len(version) < 9):
        raise InvalidInput(_("This form is incomplete. Reload the page and repeat."))
    return _act(
        request,
        instruction,
        f"change-{pk}",
        lambda: (
            services.comment_change(
                comment_id=comment.pk, author=request.user, body=request.POST.get("body", ""), number=int(version)
            ).comment
        ),
    )


@roles_required(*services.WRITERS)
@require_POST
def comment_turn(request: UserRequest, slug: str, number: int, pk: int, turn: str) -> HttpResponse:
    instruction, comment = _found(slug, number, pk)
    act = services.comment_resolve if turn == "resolve" else services.comment_reopen
    return _act(request, instruction, "", lambda: act(comment_id=comment.pk, actor=request.user).comment)


def _found(slug: str, number: int, pk: int) -> tuple[Instruction, Comment]:
    instruction = review_selectors.instruction_get(slug, number)
    comment = Comment.objects.filter(pk=pk, instruction=instruction).first()
    if comment is None:
        raise Http404
    return instruction, comment


def _act(request: UserRequest, instruction: Instruction, form: str, act: Callable[[], Comment]) -> HttpResponse:
    """Do it and show the comments; a refusal shows them too, with what was typed in its place."""
    try:
        done = act()
    except (InvalidInput, WrongState, NotAllowed) as refusal:
        typed = {"form": form, "body": request.POST.get("body", ""), "quote": request.POST.get("quote", "")}
        return _page(request, instruction, {"refusal": str(refusal.user_message), **typed}, status=refusal.status)
    if request.htmx:
        return _page(request, instruction)
    url = reverse("instruction-comments", args=[instruction.task.slug, instruction.number])
    return redirect(f"{url}#comment-{done.pk}")


def _page(
    request: UserRequest, instruction: Instruction, refused: dict[str, str] | None = None, *, status: int = 200
) -> HttpResponse:
    context = {
        "task": instruction.task,
        "instruction": instruction,
        "view": view_of(request, instruction.task),
        "refused_comment": refused,
        "is_open_fold": True,
        **comment_context(request, instruction, figures_shown=figures_open(instruction, request.user)),
    }
    if request.htmx:
        return render(request, "rules/review_comments.html", context, status=status)
    card = review_selectors.card_of(instruction, request.user)
    return render(request, "rules/instruction_comments.html", context | {"card": card}, status=status)


def comment_context(
    request: UserRequest, instruction: Instruction, *, figures_shown: bool, there_are: bool = True
) -> dict[str, Any]:
    """What `rules/review_comments.html` needs."""
    return {
        "comments": selectors.comments_of(instruction, request.user, figures_shown=figures_shown)
        if there_are
        else selectors.CommentBox(),
        "figures_shown": figures_shown,
        "may_comment": request.user.role in services.WRITERS,
    }
