"""Addresses within a view of the queue: each carries the view, so that a link shows a colleague the same."""

from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from pld_app.access import UserRequest
from rules.forms.review import QueueFilterForm
from rules.models import Task
from rules.selectors.review_filter import ReviewFilter


def view_of(request: UserRequest, task: Task) -> ReviewFilter:
    return QueueFilterForm(request.GET.dict(), task=task, user=request.user).to_filter()


def card_url(task: Task, number: int, view: ReviewFilter) -> str:
    return f"{reverse('instruction-detail', args=[task.slug, number])}?{view.query}"


def to_queue(request: UserRequest, task: Task, view: ReviewFilter) -> HttpResponse:
    """Away from the card: htmx would put the whole page into the card's place, so it is told to go there."""
    url = queue_url(task, view)
    return HttpResponseClientRedirect(url) if request.htmx else redirect(url)


def queue_url(task: Task, view: ReviewFilter) -> str:
    return f"{reverse('review-queue', args=[task.slug])}?{view.query}"
