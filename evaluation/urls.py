from django.urls import include, path

from evaluation.views import runs as views

_pages = [
    path("", views.evaluation_list, name="evaluation-list"),
    path("new/", views.evaluation_new, name="evaluation-new"),
    path("compare/", views.evaluation_compare, name="evaluation-compare"),
    path("<int:number>/", views.evaluation_detail, name="evaluation-detail"),
    path("<int:number>/cancel/", views.evaluation_cancel, name="evaluation-cancel"),
    path("<int:number>/rerun/", views.evaluation_rerun, name="evaluation-rerun"),
    path("<int:number>/export.<str:kind>", views.evaluation_export, name="evaluation-export"),
]

urlpatterns = [path("tasks/<slug:slug>/evaluation/", include(_pages))]
