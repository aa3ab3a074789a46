"""The platform under the product: settings, accounts and roles, audit log, jobs, and the edge to models."""

from pld_app.celery import app as celery_app

__all__ = ["celery_app"]
