"""Signed bundles of a ruleset: asking for one, watching it being made, taking it, and those of before."""

from django.core.paginator import Paginator
from django.http import FileResponse, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from pld_app.access import UserRequest, roles_required
from rules.models import BundleRequest, RulesetStatus
from rules.selectors.rulesets import ruleset_get
from rules.services.bundle_requests import bundle_download, bundle_request

PER_PAGE = 25


@roles_required()
@require_GET
def bundle_list(request: UserRequest, slug: str, number: int) -> HttpResponse:
    ruleset = ruleset_get(slug, number)
    bundles = ruleset.bundles.select_related("requested_by", "checkpoint").defer("statement")
    context = {
        "task": ruleset.task,
        "ruleset": ruleset,
        "page": Paginator(bundles, PER_PAGE).get_page(request.GET.get("page")),
        "can_request": ruleset.status == RulesetStatus.SIGNED,
    }
    return render(request, "rules/bundle_list.html", context)


@roles_required()
@require_POST
def bundle_request_view(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Asking again while one is being made, or is ready at the same checkpoint, leads to that one."""
    made = bundle_request(ruleset_id=ruleset_get(slug, number).pk, actor=request.user)
    return redirect("bundle-detail", slug=slug, number=number, pk=made.pk)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def bundle_detail(request: UserRequest, slug: str, number: int, pk: int) -> HttpResponse:
    bundle = _bundle(slug, number, pk)
    template = "rules/bundle_detail.html" + ("#progress" if request.htmx else "")
    context = {"task": bundle.ruleset.task, "ruleset": bundle.ruleset, "bundle": bundle, "name": _file_name(bundle)}
    return render(request, template, context)


@roles_required()
@require_GET
def bundle_download_view(request: UserRequest, slug: str, number: int, pk: int) -> FileResponse:
    bundle, path = bundle_download(request_id=_bundle(slug, number, pk).pk, actor=request.user)
    response = FileResponse(path.open("rb"), as_attachment=True, filename=_file_name(bundle))
    response["Cache-Control"] = "no-store"
    return response


def _bundle(slug: str, number: int, pk: int) -> BundleRequest:
    bundles = BundleRequest.objects.select_related("ruleset__task", "requested_by", "checkpoint").defer("statement")
    return get_object_or_404(bundles, ruleset__task__slug=slug, ruleset__number=number, pk=pk)


def _file_name(bundle: BundleRequest) -> str:
    return f"{bundle.ruleset.task.slug}-ruleset-{bundle.ruleset.number}-bundle-{bundle.pk}.zip"
