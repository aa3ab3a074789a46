"""Celery's entry points of this app: each calls services that find for themselves what is due."""

from celery import shared_task

from rules.selectors.training import database_today
from rules.services.oversight import reports_make_due
from rules.services.pruning import prune_enqueue
from rules.services.training import training_notices_send


@shared_task
def oversight_due() -> None:
    """The reports of months that are over, and word of training that expires."""
    today = database_today()
    reports_make_due(today=today)
    training_notices_send(today=today)


@shared_task
def prune() -> None:
    prune_enqueue()
