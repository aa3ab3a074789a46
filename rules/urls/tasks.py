from django.urls import path

from rules.views import tasks as views

urlpatterns = [
    path("", views.home, name="home"),
    path("tasks/new/", views.task_new, name="task-new"),
    path("tasks/<slug:slug>/", views.overview, name="task"),
    path("tasks/<slug:slug>/settings/", views.task_edit, name="task-edit"),
]
