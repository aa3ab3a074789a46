from django.urls import path

from rules.views import imports as views

urlpatterns = [
    path("imports/", views.import_list, name="imports"),
    path("imports/new/", views.import_new, name="import-new"),
    path("imports/<int:pk>/", views.import_detail, name="import-detail"),
    path("imports/<int:pk>/rejects.csv", views.import_rejects, name="import-rejects"),
    path("traces/", views.trace_list, name="traces"),
    path("traces/<int:pk>/", views.trace_detail, name="trace-detail"),
]
