"""How the log itself stands: seal, copies outside, checkpoints, keys; and a checkpoint that a reader kept."""

from django import forms
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.audit_reading import READERS
from pld_app.models import AuditKey, Checkpoint
from pld_app.transparency.health import log_health
from pld_app.transparency.kept_checkpoint import KeptVerdict, kept_compare
from pld_app.transparency.note import MAX_BYTES

PER_PAGE = 25


class KeptForm(forms.Form):
    """The note as text, or the file it was kept in."""

    note = forms.CharField(
        label=_("The note"), required=False, max_length=MAX_BYTES, strip=False, widget=forms.Textarea(attrs={"rows": 6})
    )
    file = forms.FileField(label=_("Or its file"), required=False)

    def text(self) -> str:
        """What was given; only after `is_valid`. Bytes that are no text come as text that is no note."""
        file = self.cleaned_data["file"]
        if file is None:
            return str(self.cleaned_data["note"])
        return str(file.read(MAX_BYTES + 1).decode("utf-8", "replace"))

    def clean(self) -> dict[str, object]:
        said = super().clean() or {}
        if not said.get("note") and said.get("file") is None:
            raise forms.ValidationError(_("Paste the checkpoint you kept, or choose its file."))
        return said


@roles_required(*READERS)
@require_GET
def audit_log(request: UserRequest) -> HttpResponse:
    return _page(request, KeptForm(auto_id="kept-%s"))


def _page(request: UserRequest, form: KeptForm, verdict: KeptVerdict | None = None) -> HttpResponse:
    checkpoints = Checkpoint.objects.select_related("key").prefetch_related("copies").order_by("-size", "-pk")
    context = {
        "log": log_health(),
        "form": form,
        "verdict": verdict,
        "page": Paginator(checkpoints, PER_PAGE).get_page(request.GET.get("page")),
        "keys": AuditKey.objects.select_related("signed_by", "revocation").order_by("pk"),
    }
    return render(request, "pld_app/audit_log.html", context, status=422 if form.errors else 200)


@roles_required(*READERS)
@require_POST
def kept_check(request: UserRequest) -> HttpResponse:
    """Compare a checkpoint that somebody kept. A POST for its size; it writes nothing."""
    form = KeptForm(request.POST, request.FILES, auto_id="kept-%s")
    return _page(request, form, kept_compare(form.text()) if form.is_valid() else None)


@roles_required(*READERS)
@require_GET
def checkpoint_note(request: UserRequest, pk: int) -> HttpResponse:
    """The signed note, byte for byte, to keep somewhere else."""
    checkpoint = get_object_or_404(Checkpoint, pk=pk)
    response = HttpResponse(checkpoint.note, content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="checkpoint-{checkpoint.size}.txt"'
    return response
