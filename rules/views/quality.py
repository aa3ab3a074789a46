"""The quality of a task's review: its policy, its figures, check items, pauses, and the end of a session."""

import csv
from collections.abc import Iterator

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from pld_app.spreadsheets import Echo, disarm
from rules.agreement import FEW_FOR_KAPPA, TOO_FEW
from rules.figures import line_figure
from rules.forms.quality import LiftForm, ReviewPolicyForm, SeedForm, SeedsForm
from rules.models import ReviewPause, ReviewPolicy, Seed, SeedKind, Task
from rules.selectors import quality as selectors
from rules.selectors import review_session as sessions
from rules.selectors.review_counted import WATCHERS
from rules.selectors.review_policy import policy_of
from rules.selectors.review_progress import burn_down, progress_of, waits_of
from rules.selectors.seeds import seed_page
from rules.selectors.training import untrained_reviewers
from rules.services import attention, seeds
from rules.services.review_policy import FIELDS, policy_change

PER_PAGE = 25


@roles_required()
@require_GET
def review_policy(request: UserRequest, slug: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    return _policy_page(request, task, None)


@roles_required(Role.ADMIN)
@require_POST
def review_policy_change(request: UserRequest, slug: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    form = ReviewPolicyForm(request.POST)
    if form.is_valid():
        values = {name: form.cleaned_data[name] for name in FIELDS}
        try:
            made = policy_change(task=task, admin=request.user, version=form.cleaned_data["expected"], values=values)
        except InvalidInput as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, _("Version %(version)d is in force.") % {"version": made.version})
            return redirect("review-policy", slug=slug)
    return _policy_page(request, task, form)


def _policy_page(request: UserRequest, task: Task, form: ReviewPolicyForm | None) -> HttpResponse:
    present = policy_of(task)
    fresh = ReviewPolicyForm(instance=present, initial={"expected": present.version})
    history = ReviewPolicy.objects.filter(task=task).select_related("author", "event")
    context = {
        "task": task,
        "policy": present,
        "form": form or fresh,
        "may_change": request.user.role == Role.ADMIN,
        "untrained": untrained_reviewers() if request.user.role == Role.ADMIN else [],
        "shown": [(ReviewPolicy._meta.get_field(name), getattr(present, name)) for name in FIELDS],
        "page": Paginator(history, PER_PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "rules/review_policy.html", context, status=422 if form else 200)


@roles_required()
@require_GET
def review_quality(request: UserRequest, slug: str) -> HttpResponse:
    """All figures for administrators and auditors, one's own for a reviewer, the task's progress for signatories."""
    task = get_object_or_404(Task, slug=slug)
    user = request.user
    days = burn_down(task, user)
    context: dict[str, object] = {
        "task": task,
        "parts": progress_of(task, user),
        "waits": waits_of(task, user),
        "days": days,
        "figure": line_figure([(f"{day.day:%m-%d}", day.left) for day in days]),
        "too_few": TOO_FEW,
        "few_for_kappa": FEW_FOR_KAPPA,
        "sees_all": user.role in WATCHERS,
        "lift_form": LiftForm(),
    }
    if user.role in WATCHERS:
        facts = selectors.facts_of(task)
        context["people"] = selectors.quality_by_person(facts)
        context["domains"] = selectors.quality_by_domain(facts)
        context["overall"] = selectors.quality_of_task(facts)
        context["pauses"] = list(
            ReviewPause.objects.filter(task=task, lifted_at__isnull=True).select_related("user").order_by("pk")
        )
        context["disagreements"] = selectors.disagreements_of(facts)
    elif user.role == Role.REVIEWER:
        facts = selectors.facts_of(task, over_only=True)
        context["overall"] = selectors.quality_of_person(facts, user)
        context["disagreements"] = [
            pair for pair in selectors.disagreements_of(facts) if user.pk in {pair.first.actor_id, pair.second.actor_id}
        ]
    return render(request, "rules/review_quality.html", context)


_COLUMNS = [
    "who",
    "domain_or_person",
    "judgements",
    "approved",
    "rejected",
    "edited",
    "median_seconds",
    "p90_seconds",
    "timed_n",
    "figures_seen_first",
    "figures_seen_first_n",
    "overturned",
    "overturned_low",
    "overturned_high",
    "overturned_n",
    "seeds_caught",
    "seeds_caught_low",
    "seeds_caught_high",
    "seeds_caught_n",
    "good_kept",
    "good_kept_n",
    "agreement",
    "agreement_low",
    "agreement_high",
    "kappa",
    "kappa_low",
    "kappa_high",
    "ac1",
    "ac1_low",
    "ac1_high",
    "doubles_n",
]


@roles_required()
@require_GET
def review_quality_export(request: UserRequest, slug: str) -> HttpResponse:
    """The table as CSV: the same rows the page shows this person."""
    task = get_object_or_404(Task, slug=slug)
    rows: list[tuple[str, selectors.Quality]] = []
    if request.user.role in WATCHERS:
        facts = selectors.facts_of(task)
        rows = [("all", selectors.quality_of_task(facts))]
        rows += [("domain", one) for one in selectors.quality_by_domain(facts)]
        rows += [("person", one) for one in selectors.quality_by_person(facts)]
    elif request.user.role == Role.REVIEWER:
        facts = selectors.facts_of(task, over_only=True)
        rows = [("person", selectors.quality_of_person(facts, request.user))]
    return quality_csv(rows, f"review-quality-{task.slug}.csv")


def quality_csv(rows: list[tuple[str, selectors.Quality]], name: str) -> HttpResponse:
    """The figures of (kind of row, row) as a file to download."""
    response = HttpResponse("".join(_csv(rows)), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _csv(rows: list[tuple[str, selectors.Quality]]) -> Iterator[str]:
    writer = csv.writer(Echo())
    yield "\ufeff"
    yield writer.writerow(_COLUMNS)
    for kind, one in rows:
        found = one.agreement
        cells: list[object] = [kind, one.name, one.judgements, one.approved, one.rejected, one.edited]
        cells += [one.pace.median, one.pace.p90, one.pace.n, one.seen_before.value, one.seen_before.n]
        for part in (one.overturned, one.seeds_caught):
            cells += [part.value, part.low, part.high, part.n]
        cells += [one.good_kept.value, one.good_kept.n]
        for part in (found.raw, found.kappa, found.ac1):
            cells += [part.value, part.low, part.high]
        cells.append(found.n)
        yield writer.writerow([_cell(cell) for cell in cells])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else disarm(str(value))


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def review_seeds(request: UserRequest, slug: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    return _seeds_page(request, task)


def _seeds_page(
    request: UserRequest, task: Task, many: SeedsForm | None = None, one: SeedForm | None = None
) -> HttpResponse:
    page, rows = seed_page(task, request.GET.get("page"))
    context = {
        "task": task,
        "policy": policy_of(task),
        "page": page,
        "rows": rows,
        "kinds": SeedKind,
        "many": many or SeedsForm(),
        "one": one or SeedForm(),
        "may_make": request.user.role == Role.ADMIN,
    }
    return render(request, "rules/review_seeds.html", context, status=422 if many or one else 200)


@roles_required(Role.ADMIN)
@require_POST
def seeds_make(request: UserRequest, slug: str) -> HttpResponse:
    """Several at random, or one by hand where the form names its source."""
    task = get_object_or_404(Task, slug=slug)
    if "source" in request.POST:
        form = SeedForm(request.POST)
        if not form.is_valid():
            return _seeds_page(request, task, one=form)
        source, kind = form.cleaned_data["source"], SeedKind(form.cleaned_data["kind"])
        made = [seeds.seed_make(task=task, admin=request.user, source_number=source, kind=kind)]
    else:
        several = SeedsForm(request.POST)
        if not several.is_valid():
            return _seeds_page(request, task, many=several)
        made = seeds.seeds_make(task=task, admin=request.user, count=several.cleaned_data["count"])
    said = ngettext("Made %(n)d check item.", "Made %(n)d check items.", len(made)) % {"n": len(made)}
    messages.success(request, said)
    return redirect("review-seeds", slug=slug)


@roles_required(Role.ADMIN)
@require_POST
def seed_retire(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    seed = get_object_or_404(Seed, pk=pk, instruction__task=task)
    seeds.seed_retire(task=task, seed_id=seed.pk, admin=request.user)
    messages.success(request, _("Retired. What was answered stays in the figures."))
    return redirect("review-seeds", slug=slug)


@roles_required(Role.ADMIN)
@require_POST
def pause_lift(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    pause = get_object_or_404(ReviewPause, pk=pk, task__slug=slug)
    form = LiftForm(request.POST)
    if not form.is_valid():
        raise InvalidInput(_("The note is too long."))
    attention.pause_lift(pause_id=pause.pk, admin=request.user, note=form.cleaned_data["note"])
    messages.success(request, _("%(name)s can go on.") % {"name": pause.user})
    return redirect("review-quality", slug=slug)


@roles_required(Role.REVIEWER)
@require_http_methods(["GET", "POST"])
def review_session(request: UserRequest, slug: str) -> HttpResponse:
    """What a reviewer did in their latest session; ending it shows the check items of it with their answers."""
    task = get_object_or_404(Task, slug=slug)
    if request.method == "POST":
        attention.session_end(task=task, user=request.user)
        return redirect("review-session", slug=slug)
    context = {
        "task": task,
        "session": sessions.session_of(task, request.user),
        "seeds": sessions.seeds_revealed(task, request.user),
    }
    return render(request, "rules/review_session.html", context)
