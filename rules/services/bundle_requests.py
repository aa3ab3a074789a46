"""Bundles as jobs: asked for on a page, built by a worker, signed by the sealer's process, kept for a week.

The worker makes every file but the attestation. It cannot read the log's key, so it hands its statement over in the row
and waits; `bundle_signing` answers there.
"""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Never

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import audit_record
from pld_app.errors import WrongState
from pld_app.jobs import JobResult, Lease, PutOff, job_enqueue
from pld_app.models import Checkpoint, Role, User
from rules.export_bundle.build import ATTESTATION, files_build
from rules.export_bundle.files import Files, zip_write
from rules.export_bundle.pdf import ReportFault
from rules.models import BundleRequest, BundleSignature, BundleState, Ruleset
from rules.services.bundles import NotYetSealed, check_exportable, facts_of, sealed_of

JOB_KIND, EXPIRY_JOB_KIND = "bundle", "bundle_expiry"
REQUESTERS = (Role.AUDITOR, Role.REVIEWER, Role.SIGNATORY, Role.ADMIN)
LOOK_AGAIN = timedelta(seconds=2)
# How long the seal and the signature may take, each, before the request fails in words.
PATIENCE = timedelta(minutes=10)


class BundleFailed(Exception):
    """The bundle cannot be made; the text says why and what to do."""


@transaction.atomic
def bundle_request(*, ruleset_id: int, actor: User) -> BundleRequest:
    """Ask for the bundle of a signed ruleset. One being made, or ready at the newest checkpoint, is given instead.

    Raises WrongState for a ruleset without its signatures.
    """
    require_role(actor, *REQUESTERS)
    ruleset = Ruleset.objects.select_related("task").select_for_update(of=("self",), no_key=True).get(pk=ruleset_id)
    check_exportable(ruleset)
    newest = Checkpoint.objects.order_by("-size", "-pk").first()
    for one in ruleset.bundles.exclude(state__in=[BundleState.FAILED, BundleState.EXPIRED]):
        if one.is_open or one.checkpoint_id == (newest and newest.pk):
            return one
    request = BundleRequest(ruleset=ruleset, requested_by=actor)
    data = {"folder": str(request.folder)}
    request.event = audit_record(
        "bundle.requested", actor=actor, subject=ruleset, task_slug=ruleset.task.slug, data=data
    )
    request.save()
    job_enqueue(kind=JOB_KIND, subject_id=request.pk, key=f"{JOB_KIND}:{request.pk}", created_by=actor)
    return request


@transaction.atomic
def bundle_download(*, request_id: int, actor: User) -> tuple[BundleRequest, Path]:
    """The file of a ready bundle, and the event that this person took it. Raises WrongState when there is none."""
    require_role(actor, *REQUESTERS)
    request = BundleRequest.objects.select_related("ruleset__task").get(pk=request_id)
    path = zip_path(request)
    if request.state != BundleState.READY or not path.exists():
        raise WrongState(_("There is no file of this bundle now. Request a new one."))
    audit_record(
        "bundle.downloaded",
        actor=actor,
        subject=request.ruleset,
        task_slug=request.ruleset.task.slug,
        data={"sha256": request.sha256},
    )
    return request, path


def bundle_execute(request_id: int, lease: Lease) -> JobResult:
    """Take a request as far as it goes. Raises PutOff while it waits for the sealer; a restart builds anew."""
    request = BundleRequest.objects.select_related("ruleset__task", "checkpoint").get(pk=request_id)
    try:
        if request.state in {BundleState.REQUESTED, BundleState.BUILDING}:
            _build(request, lease)
        if request.state == BundleState.SIGNING:
            _finish(request, lease)
    except BundleFailed as failed:
        _failed(request, str(failed), lease)
    return JobResult.DONE


def bundle_failed(request_id: int, error: str) -> None:
    """The job was given up: say so on the request, unless it had come to its end."""
    request = BundleRequest.objects.select_related("ruleset__task").get(pk=request_id)
    if request.is_open:
        _failed(request, f"Building stopped: {error}"[:500], None)


def bundle_expire(request_id: int, _lease: Lease) -> JobResult:
    """A week is over: the file goes, its hash and the record stay."""
    request = BundleRequest.objects.get(pk=request_id)
    BundleRequest.objects.filter(pk=request_id, state=BundleState.READY).update(
        state=BundleState.EXPIRED, state_at=timezone.now()
    )
    zip_path(request).unlink(missing_ok=True)
    return JobResult.DONE


def bundle_expiry_failed(_request_id: int, _error: str) -> None:
    """Nothing to say: the file stays until somebody deletes it, and is still what its hash says."""


def files_path(request: BundleRequest) -> Path:
    """The folder of the files while they are built and signed."""
    return Path(settings.MEDIA_ROOT) / "bundles" / str(request.folder)


def zip_path(request: BundleRequest) -> Path:
    return files_path(request).with_suffix(".zip")


def _build(request: BundleRequest, lease: Lease) -> None:
    newest = Checkpoint.objects.select_related("key").order_by("-size", "-pk").first()
    try:
        if newest is None:
            raise NotYetSealed(_("Nothing is sealed yet."))
        sealed = sealed_of(request.ruleset, newest.key)
    except NotYetSealed as waits:
        _wait(request, str(waits))
    except WrongState as refusal:  # withdrawn meanwhile
        raise BundleFailed(str(refusal)) from refusal
    request.checkpoint, request.events_total = sealed.checkpoint, sealed.count
    _move(request, BundleState.BUILDING, lease, "checkpoint", "events_total")

    def told(count: int) -> None:
        with transaction.atomic():
            lease.check()
            BundleRequest.objects.filter(pk=request.pk).update(events_done=count)

    folder = files_path(request)
    part = folder.with_suffix(".part")
    for old in (folder, part):
        shutil.rmtree(old, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        request.statement = files_build(facts_of(request.ruleset, sealed), part, told)
    except ReportFault as fault:
        raise BundleFailed(str(fault)) from fault
    part.rename(folder)
    _move(request, BundleState.SIGNING, lease, "statement")


def _finish(request: BundleRequest, lease: Lease) -> None:
    """With the log's signature: put the attestation in, write the ZIP and name its hash."""
    signed = BundleSignature.objects.filter(request=request).first()
    if signed is None:
        _wait(request, _("The log's signature is awaited."))
    if signed.envelope is None:
        raise BundleFailed(signed.fault)
    folder, path = files_path(request), zip_path(request)
    (folder / ATTESTATION).write_bytes(bytes(signed.envelope))
    part = path.with_suffix(".zip.part")
    with part.open("wb") as to:
        zip_write(Files.folder(folder), to)
    request.size, request.sha256 = part.stat().st_size, Files.folder(part.parent).sha256(part.name)
    part.rename(path)
    _ready(request, lease)
    shutil.rmtree(folder, ignore_errors=True)


@transaction.atomic
def _ready(request: BundleRequest, lease: Lease) -> None:
    request.expires_at = timezone.now() + BundleRequest.KEPT
    _move(request, BundleState.READY, lease, "size", "sha256", "expires_at")
    key = f"{EXPIRY_JOB_KIND}:{request.pk}"
    job_enqueue(kind=EXPIRY_JOB_KIND, subject_id=request.pk, key=key, run_after=request.expires_at)
    assert request.checkpoint is not None
    data = {"sha256": request.sha256, "bytes": request.size, "tree_size": request.checkpoint.size}
    task_slug = request.ruleset.task.slug
    audit_record("bundle.made", actor=None, subject=request.ruleset, task_slug=task_slug, data=data)


@transaction.atomic
def _failed(request: BundleRequest, error: str, lease: Lease | None) -> None:
    request.error = error[:500]
    _move(request, BundleState.FAILED, lease, "error")
    for path in (files_path(request), files_path(request).with_suffix(".part")):
        shutil.rmtree(path, ignore_errors=True)
    task_slug = request.ruleset.task.slug
    audit_record(
        "bundle.failed", actor=None, subject=request.ruleset, task_slug=task_slug, data={"error": request.error}
    )


def _wait(request: BundleRequest, why: str) -> Never:
    """Raises PutOff, or BundleFailed when it has waited too long already."""
    if timezone.now() - request.state_at > PATIENCE:
        raise BundleFailed(_("%(why)s The sealer did not answer in 10 minutes: see the Health page.") % {"why": why})
    raise PutOff(timezone.now() + LOOK_AGAIN, why)


@transaction.atomic
def _move(request: BundleRequest, to: BundleState, lease: Lease | None, *fields: str) -> None:
    if lease is not None:
        lease.check()
    request.state, request.state_at = to, timezone.now()
    request.save(update_fields=["state", "state_at", *fields])
    # Whether it waits for the seal or for the signature: the sealer need not sleep its round out.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('pld_audit_seal', '')")
