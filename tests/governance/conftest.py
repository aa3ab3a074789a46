"""The roles of an installation in the test database, the people of a task, and a sealed log."""

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from pld_app.models import Domain, Role, User
from rules.models import Task
from tests.database_roles import AS_APPLICATION, roles_apply
from tests.factories import make_task, make_user
from tests.governance.sealing import Log


@pytest.fixture(scope="session")
def roles(django_db_setup: None, django_db_blocker: Any) -> None:
    """Owner, application, sealer, auditor and migrator, as `manage.py database_roles apply` makes them."""
    if not AS_APPLICATION:  # else the whole run has them
        with django_db_blocker.unblock():
            roles_apply()


type Cast = tuple[Task, User, User, User, User]


@pytest.fixture
def cast(transactional_db: None) -> Cast:
    """Task, two reviewers, two signatories, committed."""
    return (
        make_task(),
        make_user("ana", Role.REVIEWER, Domain.LEGAL),
        make_user("ben", Role.REVIEWER, Domain.FINANCE),
        make_user("sam", Role.SIGNATORY),
        make_user("sue", Role.SIGNATORY),
    )


@pytest.fixture
def log(db: None, tmp_path: Path, settings: Settings) -> Log:
    """An audit log with a key of its own and a folder for copies."""
    return Log(tmp_path, settings)
