"""Keeping a search of the log under an address of its own."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.audit_reading import READERS, query_save
from pld_app.audit_reading import query_delete as delete
from pld_app.audit_search import query_of, search_get
from pld_app.errors import InvalidInput
from pld_app.forms_audit import AuditFilter
from pld_app.views.audit import list_response


@roles_required(*READERS)
@require_GET
def query(request: UserRequest, search: str) -> HttpResponse:
    """The log as the search has it; what the address says beside it narrows further."""
    saved = search_get(search, request.user)
    return list_response(request, query_of(saved) | request.GET.dict(), saved=saved)


@roles_required(*READERS)
@require_POST
def query_new(request: UserRequest) -> HttpResponse:
    form = AuditFilter(request.GET)
    if not form.is_valid():
        raise InvalidInput(_("The filter has an unknown value, so the search was not kept. Correct it first."))
    saved = query_save(
        owner=request.user,
        name=request.POST.get("name", ""),
        is_shared=request.POST.get("shared") == "yes",
        search=form.search(),
    )
    messages.success(request, _("Kept as “%(name)s”.") % {"name": saved.name})
    return redirect("audit-query", saved.slug)


@roles_required(*READERS)
@require_POST
def query_delete(request: UserRequest, search: str) -> HttpResponse:
    saved = search_get(search, request.user)
    delete(saved=saved, by=request.user)
    messages.success(request, _("“%(name)s” is deleted.") % {"name": saved.name})
    return redirect("audit")
