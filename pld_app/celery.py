"""The Celery application. The broker only carries hints: the work itself is rows in Postgres (`pld_app.jobs`)."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pld_app.settings")

app = Celery("pld_app")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
