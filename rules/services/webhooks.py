"""Webhook targets, and sending what `announcing` wrote down: signed, tried again for a day, every try on record."""

import base64
import hashlib
import hmac
import os
from datetime import timedelta

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import audit_record
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff
from pld_app.model_edge.addresses import check_url
from pld_app.models import Role, User
from pld_app.outbound import AddressRefusedError, OutboundFailed, post
from rules.exceptions import InvalidTransition
from rules.models import DeliveryState, Task, WebhookDelivery, WebhookTarget
from rules.services.announcing import JOB_KIND

__all__ = ["JOB_KIND", "delivery_failed", "delivery_send", "signature_of", "webhook_create", "webhook_retire"]

# Ten tries over about a day and a half: 15 s, doubling, at most 8 h apart.
MAX_TRIES = 10
FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(hours=8)
SECRET_PREFIX = "PLD_WEBHOOK_"  # noqa: S105  # a name, not a secret
MIN_SECRET_CHARS = 32


@transaction.atomic
def webhook_create(*, task: Task, name: str, url: str, secret_env: str, actor: User) -> WebhookTarget:
    """Tell `url` of every change of what the task's channels serve. `secret_env` names the variable of the HMAC key.

    Raises InvalidInput for an address that no request may go to, a variable of another purpose or a name in use.
    """
    require_role(actor, Role.ADMIN)
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    try:
        check_url(url)
    except AddressRefusedError as error:
        raise InvalidInput(_("This address cannot be used: %(why)s") % {"why": error}) from error
    # Only variables made for this: an administrator of the site must not have the worker sign with any other secret.
    if not (secret_env.startswith(SECRET_PREFIX) and secret_env.isascii() and secret_env.isidentifier()):
        raise InvalidInput(_("The variable's name must begin with %(prefix)s.") % {"prefix": SECRET_PREFIX})
    if task.webhooks.filter(name=name.strip(), retired_at=None).exists():
        raise InvalidInput(_("There is a webhook of this name. Choose another name or retire that one."))
    target = WebhookTarget(task=task, name=name.strip(), url=url, secret_env=secret_env, created_by=actor)
    target.full_clean(exclude={"retired_at"})
    target.save()
    data = {"url": url, "secret_env": secret_env}
    audit_record("webhook.created", actor=actor, subject=target, task_slug=task.slug, data=data)
    return target


@transaction.atomic
def webhook_retire(*, target_id: int, actor: User) -> WebhookTarget:
    """Tell a target nothing any more; what waits for it is given up."""
    require_role(actor, Role.ADMIN)
    target = WebhookTarget.objects.select_for_update(of=("self",)).select_related("task").get(pk=target_id)
    if target.retired_at is not None:
        raise InvalidTransition(_("This webhook was retired already."))
    target.retired_at = timezone.now()
    target.save(update_fields=["retired_at"])
    audit_record("webhook.retired", actor=actor, subject=target, task_slug=target.task.slug)
    return target


def signature_of(secret: str, key: str, timestamp: int, body: str) -> str:
    """`v1,` and the base64 HMAC-SHA256 over "id.timestamp.body", as the Standard Webhooks specification has it."""
    message = f"{key}.{timestamp}.{body}".encode()
    return "v1," + base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()


def delivery_send(delivery_id: int, lease: Lease) -> JobResult:
    """One try; the receiver sees the same id in every try. PutOff until the next one, FAILED after the last."""
    delivery = WebhookDelivery.objects.select_related("target").get(pk=delivery_id)
    if delivery.state != DeliveryState.WAITING:
        return JobResult.DONE
    if delivery.target.retired_at is not None:
        return _settle(delivery, lease, DeliveryState.FAILED, None, "The webhook was retired.")
    status, problem = _try(delivery)
    if not problem:
        return _settle(delivery, lease, DeliveryState.DELIVERED, status, "")
    if delivery.tries + 1 >= MAX_TRIES:
        return _settle(delivery, lease, DeliveryState.FAILED, status, problem)
    wait = min(FIRST_WAIT * 2**delivery.tries, LONGEST_WAIT)
    _settle(delivery, lease, DeliveryState.WAITING, status, problem, wait=wait)
    raise PutOff(timezone.now() + wait, problem)


def _try(delivery: WebhookDelivery) -> tuple[int | None, str]:
    """The status and what was wrong, empty when the receiver took it."""
    secret = os.environ.get(delivery.target.secret_env, "")
    if len(secret) < MIN_SECRET_CHARS:
        return (
            None,
            f"The worker has no key of {MIN_SECRET_CHARS} characters in {delivery.target.secret_env}.",
        )
    stamp = int(timezone.now().timestamp())
    headers = {
        "webhook-id": str(delivery.key),
        "webhook-timestamp": str(stamp),
        "webhook-signature": signature_of(secret, str(delivery.key), stamp, delivery.body),
        "User-Agent": "pld-review",
    }
    try:
        reply = post(delivery.target.url, delivery.body.encode(), headers)
    except (OutboundFailed, AddressRefusedError) as error:
        return None, str(error)
    return reply.status, "" if reply.is_taken else f"The receiver answered {reply.status}."


def _settle(
    delivery: WebhookDelivery,
    lease: Lease,
    state: DeliveryState,
    status: int | None,
    problem: str,
    *,
    wait: timedelta | None = None,
) -> JobResult:
    with transaction.atomic():
        lease.check()
        WebhookDelivery.objects.filter(pk=delivery.pk).update(
            state=state,
            tries=delivery.tries + 1,
            last_status=status,
            last_error=problem[:300],
            next_try_at=Now() + wait if wait else None,
            delivered_at=Now() if state == DeliveryState.DELIVERED else None,
        )
    return JobResult.DONE


def delivery_failed(delivery_id: int, error: str) -> None:
    """The worker itself failed three times on it."""
    WebhookDelivery.objects.filter(pk=delivery_id, state=DeliveryState.WAITING).update(
        state=DeliveryState.FAILED, last_error=error[:300]
    )
