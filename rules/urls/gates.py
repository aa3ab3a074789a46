from django.urls import path

from rules.views import gates as views

urlpatterns = [
    path("gates/", views.gates, name="gates"),
    path("gates/propose/", views.propose, name="gates-propose"),
    path("gates/<int:version>/confirm/", views.decide, {"verdict": "confirmed"}, name="gates-confirm"),
    path("gates/<int:version>/refuse/", views.decide, {"verdict": "refused"}, name="gates-refuse"),
    path("releases/<int:version>/exception/", views.exception, name="gates-exception"),
]
