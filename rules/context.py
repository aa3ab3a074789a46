"""What every page of a task says while something of it is stopped."""

from typing import Any

from django.http import HttpRequest

from rules.selectors.control import notices


def stops(request: HttpRequest) -> dict[str, Any]:  # template context
    """Template context: `task_stops`, the active stops of the task the page is about."""
    user = getattr(request, "user", None)
    match = request.resolver_match
    slug = match.kwargs.get("slug") if match else None
    if not slug or user is None or not user.is_authenticated:
        return {}
    return {"task_stops": notices(slug), "task_stops_slug": slug}
