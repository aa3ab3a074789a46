"""Your security: second factors, recovery codes, sessions; and what an administrator may reset or demand."""

import io
import secrets

import segno
from django import forms
from django.contrib import messages
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from pld_app import factors, oidc, totp
from pld_app.access import UserRequest, roles_required
from pld_app.assertions import b64, unb64
from pld_app.errors import InvalidInput, WrongState
from pld_app.forms_proof import CodeField, PasswordField
from pld_app.models import Role, SigningConsent, SsoIdentity, UserSession
from pld_app.passkeys import registration_options, site_of
from pld_app.reauthentication import second_factor_for_signatories
from pld_app.sign_in import SignInLocked, sign_in_check

# When the password was given last, so that an unattended browser changes nothing; and the challenge to a new passkey.
UNLOCKED, CHALLENGE = "pld.unlocked", "pld.passkey"
UNLOCKED_S = 600


class PasskeyForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Name of the device"), max_length=60, help_text=gettext_lazy("So that you know it again.")
    )
    passkey = forms.CharField(max_length=20_000, widget=forms.HiddenInput, required=False)


class AppForm(forms.Form):
    code = CodeField(label=gettext_lazy("Code the app shows now"), required=True)


class UnlockForm(forms.Form):
    password = PasswordField()


def is_unlocked(request: UserRequest) -> bool:
    """Whether the password was given in this session within ten minutes."""
    return timezone.now().timestamp() - float(request.session.get(UNLOCKED, 0)) < UNLOCKED_S


def _require_unlocked(request: UserRequest) -> None:
    if not is_unlocked(request):
        raise WrongState(_("Give your password on your security page first: changes there take it every ten minutes."))


@roles_required()
@require_GET
def security(request: UserRequest) -> HttpResponse:
    return _page(request)


def _page(
    request: UserRequest, *, unlock: UnlockForm | None = None, passkey: PasskeyForm | None = None
) -> HttpResponse:
    user = request.user
    device = factors.active_totp(user)
    form = unlock or passkey
    context = {
        "unlocked": is_unlocked(request),
        "unlock_form": unlock or UnlockForm(),
        "passkey_form": passkey or PasskeyForm(),
        "app": device if device and device.confirmed_at else None,
        "app_possible": totp.is_configured(),
        "passkeys": factors.active_passkeys(user),
        "recovery_left": factors.recovery_codes_left(user),
        "has_second": factors.has_second_factor(user),
        "asked": user.role == Role.SIGNATORY and second_factor_for_signatories(),
        "identity": SsoIdentity.objects.filter(user=user, removed_at__isnull=True).first(),
        "sso": oidc.is_configured(),
        "consent": SigningConsent.objects.filter(user=user).first(),
        "sessions": UserSession.objects.filter(user_id=user.pk, expire_date__gt=timezone.now()).count(),
    }
    return render(request, "pld_app/security.html", context, status=422 if form and form.errors else 200)


@sensitive_post_parameters()
@roles_required()
@require_POST
def unlock(request: UserRequest) -> HttpResponse:
    """Take the password, under the limit of signing in, and allow changes for ten minutes."""
    form = UnlockForm(request.POST)
    if form.is_valid():
        try:
            found = sign_in_check(
                request=request, username=request.user.username, password=form.cleaned_data["password"]
            )
        except SignInLocked as locked:
            form.add_error("password", str(locked))
        else:
            if found is not None:
                request.session[UNLOCKED] = timezone.now().timestamp()
                return redirect("security")
            form.add_error("password", _("The password is not right."))
    return _page(request, unlock=form)


@roles_required()
@require_POST
def app_begin(request: UserRequest) -> HttpResponse:
    _require_unlocked(request)
    factors.totp_begin(user=request.user)
    return redirect("security-app")


@sensitive_post_parameters()
@roles_required()
@never_cache
@require_http_methods(["GET", "POST"])
def app(request: UserRequest) -> HttpResponse:
    """The secret of a new app as QR code and text, until a code of it is confirmed; then the recovery codes, once."""
    device = factors.totp_enrolling(request.user)
    if device is None:
        return redirect("security")
    _require_unlocked(request)
    form = AppForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            codes = factors.totp_confirm(user=request.user, code=form.cleaned_data["code"])
        except InvalidInput as refusal:
            form.add_error("code", str(refusal))
        else:
            return _codes_page(request, codes)
    secret = totp.secret_of(device)
    groups = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
    context = {"form": form, "secret": groups, "version": device.pk}
    return render(request, "pld_app/security_app.html", context, status=422 if form.errors else 200)


@roles_required()
@never_cache
@require_GET
def app_qr(request: UserRequest) -> HttpResponse:
    """The QR code as an image of its own address: nothing inline, and black on white in the dark too."""
    device = factors.totp_enrolling(request.user)
    if device is None or not is_unlocked(request):
        raise Http404
    code = segno.make(totp.provisioning_uri(totp.secret_of(device), request.user.username), error="m")
    picture = io.BytesIO()
    code.save(picture, kind="svg", scale=5, border=4, dark="#000", light="#fff")
    response = HttpResponse(picture.getvalue(), content_type="image/svg+xml")
    response["Cache-Control"] = "no-store"
    return response


@roles_required()
@require_POST
def app_remove(request: UserRequest) -> HttpResponse:
    _require_unlocked(request)
    factors.totp_remove(user=request.user)
    messages.success(request, _("The authenticator app is removed."))
    return redirect("security")


@roles_required()
@never_cache
@require_POST
def recovery_codes(request: UserRequest) -> HttpResponse:
    """New recovery codes, answered instead of a redirect: they are in no session, no log and no other page."""
    _require_unlocked(request)
    return _codes_page(request, factors.recovery_codes_renew(user=request.user))


def _codes_page(request: UserRequest, codes: list[str]) -> HttpResponse:
    response = render(request, "pld_app/recovery_codes.html", {"codes": codes})
    response["Cache-Control"] = "no-store"
    return response


@roles_required()
@require_POST
def passkey_options(request: UserRequest) -> JsonResponse:
    """What the browser is asked to make; the challenge stays in the session and counts once."""
    _require_unlocked(request)
    challenge = secrets.token_bytes(32)
    request.session[CHALLENGE] = b64(challenge)
    existing = factors.active_passkeys(request.user)
    options = registration_options(site=site_of(request), user=request.user, challenge=challenge, existing=existing)
    return JsonResponse(options)


@roles_required()
@never_cache
@require_POST
def passkey_add(request: UserRequest) -> HttpResponse:
    _require_unlocked(request)
    form = PasskeyForm(request.POST)
    challenge = request.session.pop(CHALLENGE, "")
    if form.is_valid():
        answer = form.cleaned_data["passkey"]
        try:
            if not challenge or not answer:
                raise InvalidInput(_("This browser made no passkey. It takes JavaScript and a device that has them."))
            passkey, codes = factors.passkey_add(
                user=request.user,
                site=site_of(request),
                answer=answer,
                challenge=unb64(challenge),
                name=form.cleaned_data["name"],
            )
        except InvalidInput as refusal:
            form.add_error("name", str(refusal))
        else:
            messages.success(request, _("The passkey %(name)s is added.") % {"name": passkey.name})
            return _codes_page(request, codes) if codes else redirect("security")
    return _page(request, passkey=form)


@roles_required()
@require_POST
def passkey_rename(request: UserRequest, pk: int) -> HttpResponse:
    passkey = factors.passkey_rename(user=request.user, passkey_id=pk, name=request.POST.get("name", ""))
    messages.success(request, _("The passkey is called %(name)s now.") % {"name": passkey.name})
    return redirect("security")


@roles_required()
@require_POST
def passkey_remove(request: UserRequest, pk: int) -> HttpResponse:
    _require_unlocked(request)
    passkey = factors.passkey_remove(user=request.user, passkey_id=pk)
    messages.success(request, _("The passkey %(name)s is removed.") % {"name": passkey.name})
    return redirect("security")


@roles_required()
@require_POST
def sessions_end(request: UserRequest) -> HttpResponse:
    ended = factors.sessions_end_others(user=request.user, session_key=request.session.session_key or "")
    messages.success(request, _("Ended %(count)s other sessions.") % {"count": ended})
    return redirect("security")


@roles_required(Role.ADMIN)
@require_POST
def factors_reset(request: UserRequest, pk: int) -> HttpResponse:
    user = factors.factors_reset(user_id=pk, by=request.user)
    messages.success(
        request, _("%(name)s signs in with the password alone now and was told.") % {"name": user.display_name}
    )
    return redirect("accounts")


@roles_required(Role.ADMIN)
@require_POST
def policy_set(request: UserRequest) -> HttpResponse:
    wanted = request.POST.get("second_factor") == "yes"
    factors.security_policy_set(by=request.user, second_factor_for_signatories=wanted)
    said = _("Signatories need a second factor now.") if wanted else _("Signatories need no second factor any more.")
    messages.success(request, said)
    return redirect("accounts")
