"""A seeded review: an instruction with evidence on both sides, and short words for the services."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pld_app.models import User
from rules.models import EvidenceRole, Instruction, Task
from rules.services import review as services
from tests import factories

type Act = Callable[..., Any]

RULE = "If copies may be kept for thirty days, then label Compliant."
EDIT = "If copies may be kept for sixty days, then label Compliant."


def act(service: Act, instruction: Instruction, reviewer: User, **more: Any) -> Any:
    """Call a service on the row as it is now, as a freshly loaded page would."""
    instruction.refresh_from_db()
    return service(**({"instruction_id": instruction.pk, "reviewer": reviewer, "version": instruction.version} | more))


approve = partial(act, services.instruction_approve)
edit = partial(act, services.instruction_edit)
reject = partial(act, services.instruction_reject)
defer = partial(act, services.instruction_defer)
send_back = partial(act, services.instruction_send_back)
reopen = partial(act, services.instruction_reopen)
undo = partial(act, services.instruction_undo)


@pytest.fixture
def instruction(task: Task) -> Instruction:
    made = factories.make_instruction(task, RULE, domain="legal", support=2, contradictions=1)
    for role, label in ((EvidenceRole.SUPPORTING, "Compliant"), (EvidenceRole.CONTRADICTING, "Breach")):
        factories.make_evidence(made, factories.make_trace(task, label=label), role)
    return made
