"""Questions of a ceremony; which object they are about stands in the form."""

from django.urls import path

from rules.views import ceremony as views

urlpatterns = [
    path("ceremony/passkey/", views.ceremony_passkey, name="ceremony-passkey"),
    path("ceremony/sso/", views.ceremony_sso, name="ceremony-sso"),
]
