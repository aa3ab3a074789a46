"""Starting, watching and cancelling mining runs."""

from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from pld_app.access import UserRequest, roles_required
from pld_app.models import Role
from rules.models import MatchKind, MiningRun, RunState, Split, Task
from rules.schemas import MiningParameters
from rules.selectors import mining as selectors
from rules.selectors.tasks import task_get
from rules.services import mining as services
from rules.services.mining_batches import run_batches
from rules.views.mining_budget import budget_context

PER_PAGE = 25


class MiningForm(forms.Form):
    method = forms.ChoiceField(
        label=gettext_lazy("Clustering"),
        choices=[
            ("louvain", gettext_lazy("Neighbourhood graph with Louvain (default)")),
            ("leiden", gettext_lazy("Neighbourhood graph with Leiden")),
            ("dbscan", gettext_lazy("DBSCAN, as in the paper: drops what fits nowhere")),
        ],
        initial="louvain",
    )
    resolution = forms.FloatField(
        label=gettext_lazy("Resolution"),
        required=False,
        min_value=0.01,
        max_value=50,
        help_text=gettext_lazy("Higher gives more and smaller topics. Left empty, stability chooses it."),
    )
    neighbours = forms.IntegerField(label=gettext_lazy("Neighbours"), initial=15, min_value=2, max_value=100)
    eps = forms.FloatField(
        label=gettext_lazy("eps (DBSCAN)"),
        initial=0.4,
        min_value=0.01,
        max_value=1.99,
        help_text=gettext_lazy("Cosine distance."),
    )
    min_samples = forms.IntegerField(label=gettext_lazy("min_samples (DBSCAN)"), initial=6, min_value=1, max_value=100)
    compare_dbscan = forms.BooleanField(
        label=gettext_lazy("Show what DBSCAN makes of the same vectors"),
        required=False,
        initial=True,
        help_text=gettext_lazy("For the report alone; left out above 5,000 micro-rules, where it needs gigabytes."),
    )
    max_conditions = forms.IntegerField(
        label=gettext_lazy("Further conditions in a draft"), initial=3, min_value=0, max_value=10
    )
    min_group = forms.IntegerField(
        label=gettext_lazy("Smallest group"),
        initial=3,
        min_value=1,
        max_value=100,
        help_text=gettext_lazy("Smaller ones are marked as such; of the others no condition may be left out."),
    )

    workers = forms.IntegerField(
        label=gettext_lazy("Workers for each endpoint"),
        initial=1,
        min_value=1,
        max_value=16,
        help_text=gettext_lazy(
            "How many may share the calls, if so many are free. The endpoint's limits hold over all of them together."
        ),
    )

    batch = forms.BooleanField(label=gettext_lazy("Extract by batch"), required=False)
    judge_conflicts = forms.BooleanField(
        label=gettext_lazy("Ask the teacher what it thinks of each conflict"),
        required=False,
        help_text=gettext_lazy(
            "One call for each of the 100 strongest conflicts. Shown beside them as its opinion; nothing acts on it."
        ),
    )

    def __init__(self, *args: Any, task: Task, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if task.teacher is None and task.embedder is None:
            del self.fields["workers"]
        teachers = [one for one in (task.teacher, task.second_teacher) if one is not None and one.batch_api]
        if teachers:
            percent = ", ".join(f"{one.name}: {one.batch_price_percent}%" for one in teachers)
            text = _("Answers may take up to 24 hours. Price of a batched call, of a direct one: %(percent)s.")
            self.fields["batch"].help_text = text % {"percent": percent}
        else:
            del self.fields["batch"]
        if task.teacher is None:
            del self.fields["judge_conflicts"]

    def parameters(self) -> MiningParameters:
        return MiningParameters.model_validate(self.cleaned_data)


@roles_required()
@require_GET
def mining_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    page = Paginator(selectors.mining_runs(task), PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "rules/mining_list.html", {"task": task, "page": page})


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def mining_new(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = MiningForm(request.POST or None, task=task)
    if request.method == "POST" and form.is_valid():
        run = services.mining_run_create(task=task, user=request.user, parameters=form.parameters())
        awaits = run.state == RunState.AWAITING
        text = _("The run waits for its cost to be confirmed.") if awaits else _("Mining has started.")
        messages.success(request, text)
        return redirect("mining-detail", slug=slug, pk=run.pk)
    traces = task.traces.filter(split=Split.TRAIN)
    context: dict[str, Any] = {
        "task": task,
        "form": form,
        "traces": traces.count(),
        "to_extract": traces.filter(instruction="").count(),
    }
    return render(request, "rules/mining_new.html", context, status=422 if form.errors else 200)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def mining_detail(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    task = task_get(slug)
    runs = MiningRun.objects.select_related("task", "teacher", "second_teacher", "embedder", "created_by")
    run = get_object_or_404(runs, task=task, pk=pk)
    context: dict[str, Any] = {
        "task": task,
        "run": run,
        "stages": selectors.stage_progress(run),
        "waiting": selectors.waiting_job(run),
        "batches": list(run_batches(run)),
        **budget_context(run),
    }
    if request.htmx and not run.is_final:
        return render(request, "rules/mining_detail.html#progress", context)
    context["page"] = Paginator(selectors.clusters_of(run), PER_PAGE).get_page(request.GET.get("page"))
    context["failed"] = selectors.failed_extractions(run)[:PER_PAGE]
    context["report"] = selectors.mining_report(run)
    matches = run.figures.get("matches", {})
    context["match_kinds"] = [(kind.value, kind.label, matches.get(kind.value, 0)) for kind in MatchKind]
    response = render(request, "rules/mining_detail.html", context)
    if request.htmx:
        # The run has ended since the last look: the page has more to show than its progress.
        response["HX-Refresh"] = "true"
    return response


@roles_required(Role.ADMIN)
@require_POST
def mining_cancel(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    run = get_object_or_404(MiningRun, task__slug=slug, pk=pk)
    services.mining_run_cancel(run_id=run.pk, user=request.user)
    messages.success(request, _("The run stops before its next model call. What was paid for stays recorded."))
    return redirect("mining-detail", slug=slug, pk=pk)
