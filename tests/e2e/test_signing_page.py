"""The signing page in a real browser: what changes is read, an edited text has to be opened, then it is signed."""

from collections.abc import Callable

import pytest

from pld_app.models import Domain, Role
from rules.models import Instruction, Signature
from tests.e2e.conftest import Person
from tests.factories import PASSWORD, approve_directly, make_instruction, make_task, make_user
from tests.publishing import steps

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("scripts", [True, False])
def test_a_signatory_reads_the_diff_opens_the_edited_rule_and_signs(
    person: Callable[..., Person], scripts: bool
) -> None:
    task = make_task()
    ana, ben = make_user("ana", Role.REVIEWER, Domain.LEGAL), make_user("ben", Role.REVIEWER, Domain.FINANCE)
    sam, sue = make_user("sam", Role.SIGNATORY), make_user("sue", Role.SIGNATORY)
    steps.in_production(task, ana, sam, sue)
    one = Instruction.objects.get(number=1)
    steps.reopen(one, ben)
    steps.edit(one, ben, "If clause 1 forbids copies, then label Breach.")
    approve_directly(one, ana)
    approve_directly(make_instruction(task, "If it is new, then label Breach."), ana)
    ruleset = steps.again_frozen(task, ana)

    page = person("sam", java_script_enabled=scripts).open(f"/tasks/nda/rulesets/{ruleset.number}/")
    changes = page.get_by_role("region", name="Changes against v1 in production")
    assert "forbids" in changes.locator("ins").first.inner_text()
    assert "allows" in changes.locator("del").first.inner_text()
    assert "1 added" in changes.inner_text()
    assert "approved by ana" in changes.inner_text()
    assert page.get_by_role("button", name="Sign", exact=True).count() == 0

    page.get_by_role("button", name="Open #1").click()
    page.get_by_text("Ben changed the mined text:").wait_for()
    assert page.get_by_text("0 of 1 left").is_visible()
    page.get_by_label("I approve these instructions for release", exact=True).check()
    if page.get_by_label("I understand that my electronic signature").count():
        page.get_by_label("I understand that my electronic signature").check()
    page.get_by_label("Your password, again").first.fill(PASSWORD)
    page.get_by_role("button", name="Sign", exact=True).click()
    page.get_by_text("Signed. It waits for another signature.").wait_for()
    assert Signature.objects.filter(ruleset=ruleset, signer=sam).count() == 1
