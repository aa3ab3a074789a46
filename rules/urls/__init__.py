"""Pages of a task live under /tasks/<slug>/, the student's API under /api/v1/."""

from django.urls import include, path

from rules.views.preferences import preferences
from rules.views.review_assign import absence_end, absences
from rules.views.training import training, training_end, training_grant

urlpatterns = [
    path("", include("rules.urls.ceremony")),
    path("", include("rules.urls.tasks")),
    path("preferences/", preferences, name="preferences"),
    path("absences/", absences, name="absences"),
    path("absences/<int:pk>/end/", absence_end, name="absence-end"),
    path("training/", training, name="training"),
    path("training/grant/", training_grant, name="training-grant"),
    path("training/<int:pk>/end/", training_end, name="training-end"),
    path("retention/", include("rules.urls.retention")),
    path("tasks/<slug:slug>/", include("rules.urls.imports")),
    path("tasks/<slug:slug>/", include("rules.urls.mining")),
    path("tasks/<slug:slug>/", include("rules.urls.review")),
    path("tasks/<slug:slug>/", include("rules.urls.comments")),
    path("tasks/<slug:slug>/", include("rules.urls.findings")),
    path("tasks/<slug:slug>/", include("rules.urls.quality")),
    path("tasks/<slug:slug>/", include("rules.urls.rulesets")),
    path("tasks/<slug:slug>/", include("rules.urls.publishing")),
    path("tasks/<slug:slug>/", include("rules.urls.policy")),
    path("tasks/<slug:slug>/", include("rules.urls.gates")),
    path("tasks/<slug:slug>/", include("rules.urls.control")),
]
