from django.urls import path

from rules.views import erasures
from rules.views import retention as views

urlpatterns = [
    path("", views.retention, name="retention"),
    path("propose/", views.propose, name="retention-propose"),
    path("<int:pk>/confirm/", views.decide, {"verdict": "confirmed"}, name="retention-confirm"),
    path("<int:pk>/refuse/", views.decide, {"verdict": "refused"}, name="retention-refuse"),
    path("holds/new/", views.hold_new, name="retention-hold-new"),
    path("holds/<int:pk>/release/", views.hold_end, name="retention-hold-release"),
    path("erasures/new/", erasures.erasure_new, name="retention-erasure-new"),
    path("erasures/<int:pk>/", erasures.erasure, name="retention-erasure"),
    path("erasures/<int:pk>/confirm/", erasures.decide, {"verdict": "confirmed"}, name="retention-erasure-confirm"),
    path("erasures/<int:pk>/refuse/", erasures.decide, {"verdict": "refused"}, name="retention-erasure-refuse"),
]
