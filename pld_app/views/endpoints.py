"""Model endpoints, configured by an administrator; keys stay in the environment."""

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods

from pld_app.access import UserRequest, roles_required
from pld_app.audit import Json, audit_record
from pld_app.model_edge import AddressRefusedError, check_url
from pld_app.model_edge.ledger import key_variable_allowed
from pld_app.models import ModelEndpoint, Role, User


class EndpointForm(forms.ModelForm[ModelEndpoint]):
    class Meta:
        model = ModelEndpoint
        fields = (
            "name",
            "slug",
            "kind",
            "api",
            "base_url",
            "model",
            "api_key_env",
            "structured_output",
            "concurrency",
            "requests_per_minute",
            "tokens_per_minute",
            "timeout_s",
            "max_output_tokens",
            "price_in",
            "price_out",
            "batch_api",
            "batch_price_percent",
            "is_active",
        )
        labels = {"is_active": gettext_lazy("Active")}
        help_texts = {
            "slug": gettext_lazy("Its name in addresses and commands; letters, digits and hyphens."),
            "is_active": gettext_lazy("Only an active endpoint can be chosen in a task."),
        }

    def clean_base_url(self) -> str:
        url: str = self.cleaned_data["base_url"]
        try:
            check_url(url)
        except AddressRefusedError as error:
            raise forms.ValidationError(str(error)) from error
        return url

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if slug == "new":
            raise forms.ValidationError(_("This name is the address of the form itself. Choose another."))
        return slug

    def clean_api_key_env(self) -> str:
        name: str = self.cleaned_data["api_key_env"]
        if name and not key_variable_allowed(name):
            raise forms.ValidationError(_("This is not the name of a provider's key, such as OPENAI_API_KEY."))
        return name


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def endpoint_list(request: UserRequest) -> HttpResponse:
    page = Paginator(ModelEndpoint.objects.order_by("name", "pk"), 25).get_page(request.GET.get("page"))
    return render(request, "pld_app/endpoint_list.html", {"page": page})


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def endpoint_edit(request: UserRequest, endpoint: str | None = None) -> HttpResponse:
    row = get_object_or_404(ModelEndpoint, slug=endpoint) if endpoint else None
    form = EndpointForm(request.POST if request.method == "POST" else None, instance=row)
    if request.method == "POST" and form.is_valid():
        saved = endpoint_save(form, user=request.user)
        messages.success(request, _("Saved %(name)s.") % {"name": saved.name})
        return redirect("endpoints")
    context = {"form": form, "endpoint": row}
    return render(request, "pld_app/endpoint_form.html", context, status=422 if form.errors else 200)


@transaction.atomic
def endpoint_save(form: EndpointForm, *, user: User) -> ModelEndpoint:
    """Save the form's endpoint with its audit event."""
    action = "endpoint.changed" if form.instance.pk else "endpoint.created"
    endpoint = form.save()
    data: dict[str, Json] = {"fields": list(form.changed_data), "base_url": endpoint.base_url, "model": endpoint.model}
    audit_record(action, actor=user, subject=endpoint, data=data)
    return endpoint
