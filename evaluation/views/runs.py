"""Evaluation runs: the list, starting one, watching it, reading its figures, taking it out."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from evaluation import exports
from evaluation.comparison import MOST_RUNS, comparison
from evaluation.forms import ErrorFilter, EvaluationForm
from evaluation.models import EvaluationRun
from evaluation.selectors import runs as selectors
from evaluation.services import runs as services
from evaluation.services.runs import RunEstimate
from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput, Refusal
from pld_app.models import Role
from rules.models import Task
from rules.selectors.prompt_sizes import prompt_tokens
from rules.selectors.tasks import task_get

PER_PAGE = 25


@roles_required()
@require_GET
def evaluation_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    page = Paginator(selectors.run_list(task), PER_PAGE).get_page(request.GET.get("page"))
    rows = selectors.run_rows(list(page.object_list))
    context = {
        "task": task,
        "page": page,
        "rows": rows,
        "most": MOST_RUNS,
        "comparable": sum(row.figures is not None for row in rows),
    }
    return render(request, "evaluation/evaluation_list.html", context)


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
def evaluation_new(request: UserRequest, slug: str) -> HttpResponse:
    """The form. A POST starts the run; with `estimate` in it, or as a GET with the form's fields, it only counts."""
    task = task_get(slug)
    asked = request.GET if "prompt" in request.GET else None
    form = EvaluationForm(request.POST if request.method == "POST" else asked, task=task)
    context: dict[str, Any] = {"task": task, "form": form}
    if form.is_valid():
        if request.method == "POST" and "estimate" not in request.POST:
            run = services.evaluation_run_create(task=task, user=request.user, **form.arguments())
            messages.success(request, _("Evaluation run %(n)s has started.") % {"n": run.number})
            return redirect("evaluation-detail", slug=slug, number=run.number)
        context["estimate"], context["refused"] = _estimate(task, form)
    if request.htmx:
        return render(request, "evaluation/evaluation_new.html#estimate", context)
    return render(request, "evaluation/evaluation_new.html", context, status=422 if form.errors else 200)


def _estimate(task: Task, form: EvaluationForm) -> tuple[RunEstimate | None, str]:
    try:
        return services.evaluation_estimate(task=task, **form.arguments()), ""
    except Refusal as refusal:
        return None, str(refusal.user_message)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def evaluation_detail(request: UserRequest, slug: str, number: int) -> HttpResponse:
    run = selectors.run_get(slug, number)
    context: dict[str, Any] = {"task": run.task, "run": run, "counts": _counts(run)}
    if request.htmx and not run.is_final:
        return render(request, "evaluation/evaluation_detail.html#progress", context)
    context |= _figures_context(run) | _errors_context(request, run)
    response = render(request, "evaluation/evaluation_detail.html", context)
    if request.htmx:
        # The run has ended since the last look: the page has more to show than its progress.
        response["HX-Refresh"] = "true"
    return response


def _counts(run: EvaluationRun) -> dict[str, int]:
    return {} if selectors.figures_of(run) else selectors.progress_counts(run)


def _figures_context(run: EvaluationRun) -> dict[str, Any]:
    figures = selectors.figures_of(run)
    baseline = selectors.baseline_of(run) if figures and not run.is_baseline else None
    return {
        "figures": figures,
        "confusion": selectors.run_confusion(run, figures) if figures else None,
        "by_label": selectors.run_labels(run, figures) if figures else None,
        "spread": figures.spread if figures else None,
        "baseline": baseline,
        "prompt_tokens": prompt_tokens(run.student, run.prompt),
        "seconds": (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None,
    }


def _errors_context(request: UserRequest, run: EvaluationRun) -> dict[str, Any]:
    form = ErrorFilter(request.GET, labels=run.labels, nothing=selectors.NOTHING)
    chosen = form.cleaned_data if form.is_valid() else {}
    errors = selectors.errors_of(run, gold=chosen.get("gold", ""), predicted=chosen.get("predicted", ""))
    page = Paginator(errors, PER_PAGE).get_page(request.GET.get("page"))
    return {"page": page, "filter": form, "filtered": any(chosen.values())}


@roles_required()
@require_GET
def evaluation_compare(request: UserRequest, slug: str) -> HttpResponse:
    """Up to four runs, `?run=1&run=3`, against one of them: `against=3`, else the oldest baseline."""
    task = task_get(slug)
    numbers = _numbers(request.GET.getlist("run"))
    if len(numbers) > MOST_RUNS:
        raise InvalidInput(_("Compare at most %(n)d runs at a time.") % {"n": MOST_RUNS})
    against = _numbers(request.GET.getlist("against"))
    runs = selectors.succeeded_runs(task, numbers, reference=next(iter(against), None))
    context = {
        "task": task,
        "comparison": comparison(task, runs),
        "missing": [number for number in numbers if number not in {run.number for run in runs}],
    }
    return render(request, "evaluation/evaluation_compare.html", context)


def _numbers(texts: list[str]) -> list[int]:
    """The run numbers among these texts, each once."""
    return sorted({int(text) for text in texts if text.isdecimal() and len(text) < 9})


@roles_required(Role.ADMIN)
@require_POST
def evaluation_rerun(request: UserRequest, slug: str, number: int) -> HttpResponse:
    run = services.evaluation_rerun(run_id=selectors.run_get(slug, number).pk, user=request.user)
    messages.success(request, _("Evaluation run %(n)s asks the same again.") % {"n": run.number})
    return redirect("evaluation-detail", slug=slug, number=run.number)


@roles_required(Role.ADMIN)
@require_POST
def evaluation_cancel(request: UserRequest, slug: str, number: int) -> HttpResponse:
    services.evaluation_run_cancel(run_id=selectors.run_get(slug, number).pk, user=request.user)
    messages.success(request, _("The run stops before its next model call. What was paid for stays recorded."))
    return redirect("evaluation-detail", slug=slug, number=number)


@roles_required()
@require_GET
def evaluation_export(request: UserRequest, slug: str, number: int, kind: str) -> StreamingHttpResponse:
    if kind not in exports.KINDS:
        raise Http404
    run = selectors.run_get(slug, number)
    chunks = exports.evaluation_export(run=run, kind=kind, actor=request.user)
    response = StreamingHttpResponse(chunks, content_type=exports.KINDS[kind])
    response["Content-Disposition"] = f'attachment; filename="{slug}-evaluation-{number}.{kind}"'
    return response
