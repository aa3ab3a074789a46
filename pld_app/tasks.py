"""Celery's entry points: take an id, call one service."""

from celery import shared_task

from pld_app import jobs, role_grants


@shared_task
def job_execute(job_id: int) -> None:
    jobs.job_execute(job_id=job_id)


@shared_task
def jobs_sweep() -> None:
    jobs.jobs_sweep()


@shared_task
def roles_apply() -> None:
    role_grants.roles_apply()
