"""All URLs. Apps are named by string: the platform does not import what stands on it."""

from django.contrib.auth import views as auth
from django.urls import include, path
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

from pld_app.views import accounts, audit, endpoints, health, ledger, sign_in

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("health/", health.system_health, name="system-health"),
    path("sign-in/", sign_in.SignInView.as_view(), name="login"),
    path("sign-out/", auth.LogoutView.as_view(), name="logout"),
    path("language/", require_POST(set_language), name="set-language"),
    path("audit/", audit.event_list, name="audit"),
    path("audit/export.<str:kind>", audit.event_export, name="audit-export"),
    path("ledger/", ledger.ledger_list, name="ledger"),
    path("ledger/<int:pk>/", ledger.ledger_call, name="ledger-call"),
    path("accounts/", accounts.account_list, name="accounts"),
    path("password/", accounts.account_password, name="account-password"),
    path("accounts/new/", accounts.account_new, name="account-new"),
    path("accounts/<int:pk>/deactivate/", accounts.account_deactivate, name="account-deactivate"),
    path("endpoints/", endpoints.endpoint_list, name="endpoints"),
    path("endpoints/new/", endpoints.endpoint_edit, name="endpoint-new"),
    path("endpoints/<slug:endpoint>/", endpoints.endpoint_edit, name="endpoint-edit"),
    path("api/v1/", include("rules.urls.api")),
    path("", include("rules.urls")),
    path("", include("evaluation.urls")),
]
