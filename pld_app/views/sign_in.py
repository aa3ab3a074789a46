"""Signing in and out: the password, then the second factor of who has one; the limit on guessing is the service's."""

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from pld_app.forms_proof import CodeField
from pld_app.models import User
from pld_app.oidc import is_configured as sso_is_configured
from pld_app.sign_in import (
    PENDING,
    SignInLocked,
    pending_question,
    pending_user,
    second_factor_check,
    sign_in_begin,
    sign_in_check,
    sign_out_record,
)


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": gettext_lazy(
            "Name or password is not right, or the account is not active. Check both and try again; an administrator "
            "can set a new password."
        ),
    }
    wait_s = 0

    def clean(self) -> dict[str, Any]:
        username, password = (self.cleaned_data.get(name) for name in ("username", "password"))
        if self.request is not None and username is not None and password:
            try:
                self.user_cache = sign_in_check(request=self.request, username=username, password=password)
            except SignInLocked as locked:
                self.wait_s = locked.seconds
                raise forms.ValidationError(str(locked)) from locked
            if self.user_cache is None:
                raise self.get_invalid_login_error()
        return self.cleaned_data


class SignInView(LoginView):
    form_class = SignInForm
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | {"sso": sso_is_configured()}

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user, goal = form.get_user(), self.get_success_url()
        assert isinstance(user, User)
        if sign_in_begin(request=self.request, user=user, method="password", goal=goal):
            return redirect(goal)
        return redirect("login-second")

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        return _with_wait(super().form_invalid(form), getattr(form, "wait_s", 0))


def _with_wait(response: HttpResponse, wait_s: int) -> HttpResponse:
    if wait_s:
        response.status_code = 429
        response["Retry-After"] = str(wait_s)
    return response


class SignOutView(LogoutView):
    """Ends the session in the database too, and records who left."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "POST" and request.user.is_authenticated:
            sign_out_record(user=request.user)
        return super().dispatch(request, *args, **kwargs)


class SecondFactorForm(forms.Form):
    code = CodeField(label=gettext_lazy("Code of your authenticator app, or a recovery code"))
    passkey = forms.CharField(required=False, max_length=20_000, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if not values.get("code") and not values.get("passkey"):
            raise forms.ValidationError(_("Enter a code, or use your passkey."))
        return values


@sensitive_post_parameters()
@never_cache
@require_http_methods(["GET", "POST"])
def second_factor(request: HttpRequest) -> HttpResponse:
    """The second step of signing in; who has not taken the first is sent there."""
    if request.user.is_authenticated:
        return redirect("home")
    user = pending_user(request)
    if user is None:
        if request.session.pop(PENDING, None):
            messages.warning(request, _("That took too long. Start again."))
        return redirect("login")
    form = SecondFactorForm(request.POST if request.method == "POST" else None)
    wait_s = 0
    if request.method == "POST" and form.is_valid():
        goal = str(request.session[PENDING]["goal"])
        try:
            if second_factor_check(request=request, user=user, **form.cleaned_data):
                return redirect(goal)
            form.add_error("code", _("This did not fit, or was used already. Try the next code, or your passkey."))
        except SignInLocked as locked:
            wait_s = locked.seconds
            form.add_error(None, str(locked))
    question = pending_question(request, user)
    context = {"form": form, "question": json.dumps(question) if question else "", "person": user}
    response = render(request, "registration/second_factor.html", context, status=422 if form.errors else 200)
    return _with_wait(response, wait_s)
