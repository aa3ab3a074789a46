"""The state machine of evaluation runs: the same table as for mining runs."""

from evaluation.models import EvaluationRun
from rules.models import RunState
from rules.transitions import run_state_next


def evaluation_run_move(run: EvaluationRun, to: RunState) -> None:
    """Set the state in memory; the caller holds the row lock and saves."""
    run.state = run_state_next(RunState(run.state), to, "This evaluation run")
