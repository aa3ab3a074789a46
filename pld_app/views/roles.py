"""Giving roles: asking for one, and what a second administrator says to it."""

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from pld_app import role_grants
from pld_app.access import UserRequest, roles_required
from pld_app.models import Role, RoleGrant, User


class RoleForm(forms.ModelForm[RoleGrant]):
    class Meta:
        model = RoleGrant
        fields = ("role", "domain", "reason")
        help_texts = {
            "domain": gettext_lazy("For reviewers alone."),
            "reason": gettext_lazy("The second administrator, the account's person and auditors read it."),
        }


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def role_request(request: UserRequest, pk: int) -> HttpResponse:
    account = get_object_or_404(User, pk=pk)
    posted = request.method == "POST"
    form = RoleForm(request.POST if posted else None, initial={"role": account.role, "domain": account.domain})
    if posted and form.is_valid():
        role_grants.role_request(user_id=pk, by=request.user, **form.cleaned_data)
        messages.success(request, _("Asked for. A second administrator confirms it; then it takes effect after a day."))
        return redirect("accounts")
    context = {"form": form, "account": account}
    return render(request, "pld_app/account_role.html", context, status=422 if form.errors else 200)


@roles_required(Role.ADMIN)
@require_POST
def role_confirm(request: UserRequest, pk: int) -> HttpResponse:
    step = role_grants.role_confirm(grant_id=pk, by=request.user)
    at = (step.at + role_grants.WAIT).strftime("%Y-%m-%d %H:%M")
    messages.success(request, _("Confirmed. It takes effect at %(at)s UTC.") % {"at": at})
    return redirect("accounts")


@roles_required(Role.ADMIN)
@require_POST
def role_override(request: UserRequest, pk: int) -> HttpResponse:
    user = role_grants.role_override(grant_id=pk, by=request.user, reason=request.POST.get("reason", ""))
    words = _("In effect: %(name)s is %(role)s now. Administrators and auditors were told.")
    messages.success(request, words % {"name": user.display_name, "role": user.get_role_display()})
    return redirect("accounts")


@roles_required(Role.ADMIN)
@require_POST
def role_refuse(request: UserRequest, pk: int) -> HttpResponse:
    role_grants.role_refuse(grant_id=pk, by=request.user)
    messages.success(request, _("Refused. Nothing changed for the account."))
    return redirect("accounts")
