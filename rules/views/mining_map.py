"""The map of a mining run."""

from django.core.paginator import Paginator
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from rules.models import MiningRun
from rules.selectors import mining_map as selectors
from rules.selectors.tasks import task_get

PER_PAGE = 25


@roles_required()
@require_GET
def mining_map(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    """The whole run, or with ?topic=NUMBER that topic alone and the list of its micro-rules."""
    task = task_get(slug)
    run = get_object_or_404(MiningRun.objects.select_related("task"), task=task, pk=pk)
    asked = request.GET.get("topic", "")
    drawing = selectors.mining_map(run, int(asked) if asked.isdecimal() and len(asked) < 9 else None)
    chosen = next((topic for topic in drawing.topics if str(topic.number) == asked), None)
    if asked and chosen is None:
        raise Http404
    rows = Paginator(selectors.topic_members(run, chosen.number) if chosen else drawing.topics, PER_PAGE)
    context = {
        "task": task,
        "run": run,
        "map": drawing,
        "chosen": chosen,
        "page": rows.get_page(request.GET.get("page")),
        "width": selectors.WIDTH,
        "height": selectors.HEIGHT,
    }
    return render(request, "rules/mining_map.html", context)
