"""`manage.py factor_keys_rotate`: encrypt the secrets of authenticator apps with the first key of PLD_FACTOR_KEYS.

Run it after putting a new key in front; then the old ones can go.
"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from pld_app import totp
from pld_app.audit import audit_record
from pld_app.models import TotpDevice


class Command(BaseCommand):
    help = "Encrypt the secrets of authenticator apps anew, with the first key of PLD_FACTOR_KEYS."

    def handle(self, *args: Any, **options: Any) -> None:
        if not totp.is_configured():
            raise CommandError("PLD_FACTOR_KEYS is not set.")
        with transaction.atomic():
            devices = list(TotpDevice.objects.select_for_update().filter(removed_at__isnull=True))
            for device in devices:
                TotpDevice.objects.filter(pk=device.pk).update(secret=totp.secret_rekey(device))
            if devices:
                data = {"secrets": len(devices)}
                audit_record("factor_keys.rotated", actor=None, subject=devices[0], data=data)
        self.stdout.write(f"{len(devices)} secrets are encrypted with the first key now.")
