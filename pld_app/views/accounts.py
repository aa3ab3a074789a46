"""Accounts: created and deactivated by an administrator, never deleted."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.password_validation import validate_password
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from pld_app import accounts
from pld_app.access import UserRequest, roles_required
from pld_app.factors import account_rows
from pld_app.models import Role, User
from pld_app.reauthentication import second_factor_for_signatories
from pld_app.role_grants import account_propose, grants_waiting
from pld_app.sign_in import SignInLocked, sign_in_check


class AccountForm(forms.ModelForm[User]):
    password = forms.CharField(
        label=gettext_lazy("First password"),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=gettext_lazy("At least 12 characters. Hand it over by another way than e-mail."),
    )

    class Meta:
        model = User
        fields = ("username", "display_name", "email", "role", "domain", "is_shared")

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        password = self.cleaned_data.get("password")
        if password:
            # With the other fields, so that a password like the name is refused too.
            try:
                validate_password(password, self.instance_from_fields())
            except forms.ValidationError as error:
                self.add_error("password", error)
        return cleaned

    def instance_from_fields(self) -> User:
        """The account these fields describe, not saved."""
        fields = ("username", "display_name", "email")
        return User(**{name: self.cleaned_data.get(name, "") for name in fields})


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def account_list(request: UserRequest) -> HttpResponse:
    page = Paginator(account_rows(), 25).get_page(request.GET.get("page"))
    waiting = grants_waiting()
    context = {
        "page": page,
        "second_factor_asked": second_factor_for_signatories(),
        "waiting": waiting,
        "opening": {one.grant.user_id for one in waiting if not one.grant.role_before},
    }
    return render(request, "pld_app/account_list.html", context)


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def account_new(request: UserRequest) -> HttpResponse:
    form = AccountForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        user = account_propose(by=request.user, **form.cleaned_data)
        words = _("Made the account of %(name)s. It opens when a second administrator has confirmed its role.")
        messages.success(request, words % {"name": user.display_name})
        return redirect("accounts")
    return render(request, "pld_app/account_new.html", {"form": form}, status=422 if form.errors else 200)


class PasswordForm(PasswordChangeForm):
    """One's own new password; the present one is checked under the limit of signing in.

    Without it, an unattended browser would let anybody guess the password that signatures ask for.
    """

    def __init__(self, request: UserRequest) -> None:
        super().__init__(request.user, request.POST if request.method == "POST" else None)
        self.request = request

    def clean_old_password(self) -> str:
        old: str = self.cleaned_data["old_password"]
        try:
            found = sign_in_check(request=self.request, username=self.request.user.username, password=old)
        except SignInLocked as locked:
            raise forms.ValidationError(str(locked)) from locked
        if found is None:
            raise forms.ValidationError(self.error_messages["password_incorrect"])
        return old


@roles_required()
@require_http_methods(["GET", "POST"])
def account_password(request: UserRequest) -> HttpResponse:
    """One's own password; the present one is asked for, and every other session of the account ends."""
    form = PasswordForm(request)
    if request.method == "POST" and form.is_valid():
        chosen = form.cleaned_data["new_password1"]
        user = accounts.account_set_password(user_id=request.user.pk, password=chosen, by=request.user)
        update_session_auth_hash(request, user)
        messages.success(request, _("Your password is changed. Your other sessions have ended."))
        return redirect("home")
    return render(request, "pld_app/account_password.html", {"form": form}, status=422 if form.errors else 200)


@roles_required(Role.ADMIN)
@require_POST
def account_deactivate(request: UserRequest, pk: int) -> HttpResponse:
    user = accounts.account_deactivate(user_id=pk, by=request.user)
    messages.success(request, _("%(name)s can no longer sign in.") % {"name": user.display_name})
    return redirect("accounts")
