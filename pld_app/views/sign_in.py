"""The sign-in page; the limit on guessing is the service's."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.http import HttpResponse
from django.utils.translation import gettext_lazy

from pld_app.sign_in import SignInLocked, sign_in_check


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

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_invalid(form)
        wait_s = getattr(form, "wait_s", 0)
        if wait_s:
            response.status_code = 429
            response["Retry-After"] = str(wait_s)
        return response
