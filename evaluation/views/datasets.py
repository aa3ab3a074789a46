"""Datasets, and how an example becomes a question."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from evaluation.answers import render_user_message
from evaluation.forms import DatasetForm, InputTemplateForm
from evaluation.models import Dataset
from evaluation.selectors import datasets as selectors
from evaluation.services import datasets as services
from evaluation.services.dataset_check import SIMILAR
from evaluation.services.input_templates import input_template_of, input_template_save
from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput, Refusal
from pld_app.models import Role
from pld_app.uploads import TOO_LARGE
from rules.models import Task
from rules.selectors.tasks import task_get

PER_PAGE = 25


@roles_required()
@require_GET
def dataset_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    page = Paginator(selectors.dataset_list(task), PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "evaluation/dataset_list.html", {"task": task, "page": page})


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def dataset_new(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = DatasetForm(request.POST, request.FILES) if request.method == "POST" else DatasetForm()
    if request.META.get(TOO_LARGE):
        limit = settings.IMPORT_MAX_BYTES // (1024 * 1024)
        form.errors["file"] = form.error_class(
            [_("The file is larger than %(n)d MiB. Compress it with gzip or split it.") % {"n": limit}]
        )
    elif request.method == "POST" and form.is_valid():
        try:
            dataset = _dataset_make(task, request, form)
        except Refusal as refusal:
            form.add_error(None, str(refusal.user_message))
        else:
            return redirect("evaluation-dataset", slug=slug, number=dataset.number)
    context = {"task": task, "form": form}
    return render(request, "evaluation/dataset_new.html", context, status=422 if form.errors else 200)


def _dataset_make(task: Task, request: UserRequest, form: DatasetForm) -> Dataset:
    chosen = form.cleaned_data
    upload = chosen["file"]
    if upload:
        messages.success(request, _("Uploaded %(name)s.") % {"name": upload.name})
        return services.dataset_upload(
            task=task, user=request.user, name=chosen["name"], upload=upload, file_name=upload.name or "examples"
        )
    dataset = services.dataset_from_traces(
        task=task, user=request.user, name=chosen["name"], leave_out_copies=chosen["copies"] != "refuse"
    )
    messages.success(request, _("Dataset %(n)s is frozen.") % {"n": dataset.number})
    return dataset


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def dataset_detail(request: UserRequest, slug: str, number: int) -> HttpResponse:
    dataset = selectors.dataset_get(slug, number)
    context: dict[str, Any] = {
        "task": dataset.task,
        "dataset": dataset,
        "splits": selectors.split_rows(dataset, dataset.task.labels),
        "check": selectors.check_of(dataset),
        "similar": f"{SIMILAR:.0%}",
    }
    template = "evaluation/dataset_detail.html" + ("#state" if request.htmx else "")
    return render(request, template, context)


@roles_required()
@require_GET
def input_template(request: UserRequest, slug: str) -> HttpResponse:
    """The template that counts, with an example as the student reads it."""
    task = task_get(slug)
    standing = input_template_of(task)
    given = {"text": standing.text, "abstention_label": standing.abstention_label}
    return _template_page(request, task, InputTemplateForm(initial=given))


@roles_required(Role.ADMIN)
@require_POST
def input_template_new(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = InputTemplateForm(request.POST)
    if form.is_valid():
        try:
            saved = input_template_save(task=task, user=request.user, **form.cleaned_data)
        except InvalidInput as refusal:
            form.add_error("text", str(refusal.user_message))
        else:
            messages.success(request, _("Version %(n)s counts for runs from now on.") % {"n": saved.version})
            return redirect("evaluation-template", slug=slug)
    return _template_page(request, task, form, status=422)


def _template_page(request: UserRequest, task: Task, form: InputTemplateForm, *, status: int = 200) -> HttpResponse:
    standing = input_template_of(task)
    trace = task.traces.only("input").first()
    values = trace.input if trace else dict.fromkeys(task.input_fields, "…")
    context = {
        "task": task,
        "form": form,
        "standing": standing,
        "message": render_user_message(task.input_fields, values, standing.text),
        "versions": list(task.input_templates.select_related("created_by")[:PER_PAGE]),
    }
    return render(request, "evaluation/input_template.html", context, status=status)
