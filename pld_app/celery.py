"""The Celery application. The broker only carries hints: the work itself is rows in Postgres (`pld_app.jobs`)."""

import os

from celery import Celery
from celery.signals import beat_init, worker_init

from pld_app.transparency.key_file import refuse_private_key

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pld_app.settings")

app = Celery("pld_app")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_init.connect
@beat_init.connect
def _no_private_key(**_signal: object) -> None:
    refuse_private_key()
