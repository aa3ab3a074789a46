from django.urls import path

from rules.views import policy as views

urlpatterns = [
    path("policy/", views.policy, name="policy"),
    path("policy/propose/", views.propose, name="policy-propose"),
    path("policy/<int:version>/confirm/", views.decide, {"verdict": "confirmed"}, name="policy-confirm"),
    path("policy/<int:version>/refuse/", views.decide, {"verdict": "refused"}, name="policy-refuse"),
]
