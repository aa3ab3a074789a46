"""All URLs. Apps are named by string: the platform does not import what stands on it."""

from django.urls import include, path
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

from pld_app.views import accounts, audit, endpoints, health, inbox, ledger, security, sign_in, sso

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("health/", health.system_health, name="system-health"),
    path("sign-in/", sign_in.SignInView.as_view(), name="login"),
    path("sign-in/second/", sign_in.second_factor, name="login-second"),
    path("sign-in/sso/", sso.sso_start, name="sso-start"),
    path("sign-in/sso/callback/", sso.sso_callback, name="sso-callback"),
    path("sign-out/", sign_in.SignOutView.as_view(), name="logout"),
    path("security/", security.security, name="security"),
    path("security/unlock/", security.unlock, name="security-unlock"),
    path("security/app/", security.app, name="security-app"),
    path("security/app/begin/", security.app_begin, name="security-app-begin"),
    path("security/app/code.svg", security.app_qr, name="security-app-qr"),
    path("security/app/remove/", security.app_remove, name="security-app-remove"),
    path("security/recovery-codes/", security.recovery_codes, name="security-recovery-codes"),
    path("security/passkeys/", security.passkey_add, name="security-passkey-add"),
    path("security/passkeys/options/", security.passkey_options, name="security-passkey-options"),
    path("security/passkeys/<int:pk>/rename/", security.passkey_rename, name="security-passkey-rename"),
    path("security/passkeys/<int:pk>/remove/", security.passkey_remove, name="security-passkey-remove"),
    path("security/sessions/end/", security.sessions_end, name="security-sessions-end"),
    path("inbox/", inbox.inbox, name="inbox"),
    path("inbox/read/", inbox.inbox_read_all, name="inbox-read-all"),
    path("inbox/mail/", inbox.inbox_choices, name="inbox-choices"),
    path("inbox/<int:pk>/open/", inbox.inbox_open, name="inbox-open"),
    path("language/", require_POST(set_language), name="set-language"),
    path("audit/", audit.event_list, name="audit"),
    path("audit/export.<str:kind>", audit.event_export, name="audit-export"),
    path("ledger/", ledger.ledger_list, name="ledger"),
    path("ledger/<int:pk>/", ledger.ledger_call, name="ledger-call"),
    path("accounts/", accounts.account_list, name="accounts"),
    path("password/", accounts.account_password, name="account-password"),
    path("accounts/new/", accounts.account_new, name="account-new"),
    path("accounts/policy/", security.policy_set, name="account-policy"),
    path("accounts/<int:pk>/factors/reset/", security.factors_reset, name="account-factors-reset"),
    path("accounts/<int:pk>/deactivate/", accounts.account_deactivate, name="account-deactivate"),
    path("endpoints/", endpoints.endpoint_list, name="endpoints"),
    path("endpoints/new/", endpoints.endpoint_edit, name="endpoint-new"),
    path("endpoints/<slug:endpoint>/", endpoints.endpoint_edit, name="endpoint-edit"),
    path("api/v1/", include("rules.urls.api")),
    path("", include("rules.urls")),
    path("", include("evaluation.urls")),
]
