"""The demo's accounts: enough people for every step, and passwords only their owner can read."""

import json
import stat
from pathlib import Path

import pytest

from evaluation.management.commands.demo_seed import ACCOUNTS, _accounts_make, _passwords
from pld_app.models import Role, User


@pytest.mark.django_db
def test_an_older_demo_gets_the_account_it_lacks_and_keeps_its_passwords(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    older = {one.username: f"older-{one.username}-secret" for one in ACCOUNTS if one.username != "theo"}
    path.write_text(json.dumps(older))
    made = _passwords(path)
    assert made == older | {"theo": made["theo"]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _passwords(path) == made
    _accounts_make(made)
    _accounts_make(made)
    assert User.objects.filter(role=Role.REVIEWER).count() == 3
    assert User.objects.get(username="theo").check_password(made["theo"])
