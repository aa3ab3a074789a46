"""The product's URLs and one that does nothing, behind the same middleware: what a request costs at least."""

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def bare(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"ok")


urlpatterns = [path("bare/", bare), path("", include("pld_app.urls"))]
