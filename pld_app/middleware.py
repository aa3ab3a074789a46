"""Middlewares: the outer edge, idle time, an id for each request, and the one place where refusals become pages."""

import uuid
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from pld_app.access import kept_text, page_before
from pld_app.errors import Refusal
from pld_app.session_store import session_seen


class EdgeMiddleware:
    """Outermost: no cookie reaches Postgres with a NUL in it, and no answer leaves without its frame.

    Django's SecurityMiddleware sets no headers on the 400 it gives to an unknown host itself.
    """

    FRAME = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
    }

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # A quoted cookie may spell any byte, so the web server lets a NUL through.
        for name in [name for name, value in request.COOKIES.items() if "\x00" in value]:
            del request.COOKIES[name]
        response = self.get_response(request)
        for name, value in self.FRAME.items():
            response.headers.setdefault(name, value)
        return response


class SessionSeenMiddleware:
    """Puts off the end of a session while its person is there; a page that only asks for progress is nobody."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "X-PLD-Poll" not in request.headers:
            session_seen(request)
        return self.get_response(request)


class RequestIdMiddleware:
    """Gives each request an id that its logs and audit events carry, and answers with it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = str(uuid.uuid4())
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = self.get_response(request)
        response["X-Request-ID"] = request_id
        return response


class RefusalMiddleware:
    """Shows a `Refusal` raised by a view as a page, or as a fragment when htmx asked; nothing was changed."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, Refusal):
            return None
        # What was typed is handed back in full: a refusal must never cost a person their text.
        kept = kept_text(request)
        template = "refusal.html#fragment" if getattr(request, "htmx", False) else "refusal.html"
        context = {
            "message": exception.user_message,
            "status": exception.status,
            "kept": kept,
            "back": page_before(request),
        }
        response = render(request, template, context, status=exception.status)
        if getattr(request, "htmx", False):
            response["HX-Retarget"] = "#refusal"
            response["HX-Reswap"] = "innerHTML"
        return response
