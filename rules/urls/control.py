from django.urls import path

from rules.views import control as views
from rules.views import webhooks

urlpatterns = [
    path("control/", views.control, name="control"),
    path("control/stop/", views.stop_new, name="control-stop"),
    path("control/stops/<int:pk>/confirm/", views.stop_signature, {"kind": "confirm"}, name="control-stop-confirm"),
    path("control/stops/<int:pk>/lift/", views.stop_signature, {"kind": "lift"}, name="control-stop-lift"),
    path("control/schedule/", views.schedule_new, name="control-schedule"),
    path("control/schedules/<int:pk>/cancel/", views.schedule_end, name="control-schedule-cancel"),
    path("webhooks/", webhooks.webhooks, name="webhooks"),
    path("webhooks/new/", webhooks.webhook_new, name="webhook-new"),
    path("webhooks/<int:pk>/retire/", webhooks.webhook_end, name="webhook-retire"),
    path("served/", webhooks.served, name="served"),
]
