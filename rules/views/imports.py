"""Uploading trace files, watching their import, and looking at traces."""

import csv
from collections.abc import Iterator

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods
from django.views.decorators.vary import vary_on_headers

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from pld_app.spreadsheets import Echo, disarm
from pld_app.uploads import TOO_LARGE
from rules.forms.tasks import TraceUploadForm
from rules.models import ImportReject, Split, Trace, TraceImport
from rules.selectors.tasks import task_get
from rules.services.imports import import_create

PER_PAGE = 25


@roles_required()
@require_GET
def import_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    imports = TraceImport.objects.filter(task=task).select_related("created_by")
    page = Paginator(imports, PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "rules/import_list.html", {"task": task, "page": page})


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def import_new(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = TraceUploadForm(request.POST, request.FILES) if request.method == "POST" else TraceUploadForm()
    if request.META.get(TOO_LARGE):
        limit = settings.IMPORT_MAX_BYTES // (1024 * 1024)
        text = _("The file is larger than %(n)s MiB. Compress it with gzip or split it.") % {"n": limit}
        form.errors["file"] = form.error_class([text])  # in place of "required": the file was dropped on the way
    elif request.method == "POST" and form.is_valid():
        upload = form.cleaned_data["file"]
        trace_import = import_create(task=task, upload=upload, file_name=upload.name or "traces", user=request.user)
        messages.success(request, _("Uploaded %(name)s.") % {"name": trace_import.file_name})
        return redirect("import-detail", slug=slug, pk=trace_import.pk)
    return render(request, "rules/import_new.html", {"task": task, "form": form}, status=422 if form.errors else 200)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def import_detail(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    task = task_get(slug)
    trace_import = get_object_or_404(TraceImport.objects.select_related("created_by"), task=task, pk=pk)
    page = Paginator(trace_import.rejects.all(), PER_PAGE).get_page(request.GET.get("page"))
    template = "rules/import_detail.html" + ("#progress" if request.htmx else "")
    return render(request, template, {"task": task, "import": trace_import, "page": page})


@roles_required()
@require_GET
def import_rejects(request: UserRequest, slug: str, pk: int) -> StreamingHttpResponse:
    """Every stored reject as CSV, to mend the file by."""
    trace_import = get_object_or_404(TraceImport, task__slug=slug, pk=pk)

    def rows() -> Iterator[str]:
        writer = csv.writer(Echo())
        yield writer.writerow(["line", "reason", "message", "row"])
        for reject in ImportReject.objects.filter(trace_import=trace_import).iterator():
            yield writer.writerow([reject.line, reject.reason, disarm(reject.message), disarm(reject.excerpt)])

    response = StreamingHttpResponse(rows(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="rejects-{trace_import.pk}.csv"'
    return response


@roles_required()
@require_GET
def trace_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    traces = Trace.objects.filter(task=task)
    split, label, text = (request.GET.get(name, "") for name in ("split", "label", "q"))
    if split in Split.values:
        traces = traces.filter(split=split)
    if label in task.labels:
        traces = traces.filter(label=label)
    if text:
        if "\x00" in text:
            raise InvalidInput("The search text holds a NUL character.")
        traces = traces.filter(instruction__icontains=text)
    page = Paginator(traces, PER_PAGE).get_page(request.GET.get("page"))
    context = {"task": task, "page": page, "splits": Split.choices, "split": split, "label": label, "q": text}
    return render(request, "rules/trace_list.html", context)


@roles_required()
@require_GET
def trace_detail(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    task = task_get(slug)
    trace = get_object_or_404(Trace.objects.select_related("first_import"), task=task, pk=pk)
    # As pairs: in a template `metadata.items` would be the value of a key of that name.
    context = {"task": task, "trace": trace, "input": [*trace.input.items()], "metadata": [*trace.metadata.items()]}
    return render(request, "rules/trace_detail.html", context)
