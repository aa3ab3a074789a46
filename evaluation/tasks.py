"""Celery's entry point of beat: call one service."""

from celery import shared_task

from evaluation.services import reevaluation


@shared_task
def tasks_follow() -> None:
    reevaluation.tasks_follow()
