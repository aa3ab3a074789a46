"""The management commands: exact bytes out, clear words when there is nothing."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from pld_app.canonical import sha256_hex
from pld_app.models import AuditEvent, User
from rules.models import PromptToken, Task
from tests.publishing import steps


def run(name: str, *args: str) -> str:
    out = io.StringIO()
    call_command(name, *args, stdout=out)
    return out.getvalue()


def test_export_prompt_writes_the_exact_prompt(task: Task, ana: User, sam: User, sue: User) -> None:
    with pytest.raises(CommandError, match="Nothing valid is published to production"):
        run("export_prompt", "nda")
    release = steps.in_production(task, ana, sam, sue)
    for channel in ("production", "staging"):
        assert sha256_hex(run("export_prompt", "nda", "--channel", channel)) == release.prompt_sha256
    with pytest.raises(CommandError, match="no task"):
        run("export_prompt", "none")


def test_export_ruleset_writes_evidence_and_leaves_a_trail(task: Task, ana: User, sam: User, sue: User) -> None:
    ruleset = steps.signed(task, ana, sam, sue)
    assert json.loads(run("export_ruleset", "nda", "1"))["manifest_sha256"] == ruleset.manifest_sha256
    assert run("export_ruleset", "nda", "1", "--format", "csv").count(ruleset.manifest_sha256) == 3
    assert AuditEvent.objects.filter(action="ruleset.exported", actor=None, actor_name="system").count() == 2
    steps.again_draft(task, ana)
    with pytest.raises(CommandError, match="Only a frozen ruleset"):
        run("export_ruleset", "nda", "2")
    with pytest.raises(CommandError, match="no ruleset 9"):
        run("export_ruleset", "nda", "9")


def test_prompt_token_prints_the_secret_once(task: Task, ada: User, sam: User) -> None:
    secret = run("prompt_token", "nda", "--name", "student").strip()
    token = PromptToken.objects.get()
    assert token.digest == sha256_hex(secret)
    assert token.created_by == ada
    with pytest.raises(CommandError, match="active token of this name"):
        run("prompt_token", "nda", "--name", "student")
    with pytest.raises(CommandError, match="no such active administrator"):
        run("prompt_token", "nda", "--name", "x", "--by", "sam")
