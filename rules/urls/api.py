"""The student's API; to be mounted at /api/v1/. The plain name `api-prompt` is for links from pages."""

from typing import cast

from django.urls import URLPattern, path

from rules.api import api

_prompt = next(pattern for pattern in api.urls[0] if getattr(pattern, "name", "") == "prompt")

urlpatterns = [
    path("tasks/<slug:task>/prompt", cast(URLPattern, _prompt).callback, name="api-prompt"),
    path("", api.urls),
]
