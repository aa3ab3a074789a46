"""Addresses within a view of the queue: each carries the view, so that a link shows a colleague the same."""

from django.urls import reverse

from pld_app.access import UserRequest
from rules.forms.review import QueueFilterForm
from rules.models import Task
from rules.selectors.review_filter import ReviewFilter


def view_of(request: UserRequest, task: Task) -> ReviewFilter:
    return QueueFilterForm(request.GET.dict(), task=task, user=request.user).to_filter()


def card_url(task: Task, number: int, view: ReviewFilter) -> str:
    return f"{reverse('instruction-detail', args=[task.slug, number])}?{view.query}"


def queue_url(task: Task, view: ReviewFilter) -> str:
    return f"{reverse('review-queue', args=[task.slug])}?{view.query}"
