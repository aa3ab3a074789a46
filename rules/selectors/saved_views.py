"""Which saved views a person may see: their own, and those kept for everybody."""

from urllib.parse import parse_qsl

from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404

from pld_app.models import User
from rules.models import Audience, SavedView, Task


def saved_views_for(task: Task, user: User) -> QuerySet[SavedView]:
    """A private one is seen by its owner and nobody else, administrators and auditors included."""
    return SavedView.objects.filter(task=task).filter(~Q(audience=Audience.PRIVATE) | Q(owner=user))


def saved_view_get(task: Task, slug: str, user: User) -> SavedView:
    """404 for another's private one, as for one that does not exist."""
    return get_object_or_404(saved_views_for(task, user), slug=slug)


def default_view(task: Task) -> SavedView | None:
    return SavedView.objects.filter(task=task, audience=Audience.DEFAULT).first()


def query_of(saved: SavedView) -> dict[str, str]:
    return dict(parse_qsl(saved.query))
