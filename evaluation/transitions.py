"""The state machine of evaluation runs and ablations: the same table as for mining runs."""

from evaluation.models import Ablation, EvaluationRun
from rules.models import RunState
from rules.transitions import run_state_next


def evaluation_run_move(run: EvaluationRun, to: RunState) -> None:
    """Set the state in memory; the caller holds the row lock and saves."""
    run.state = run_state_next(RunState(run.state), to, "This evaluation run")


def ablation_move(ablation: Ablation, to: RunState) -> None:
    """Set the state in memory; the caller holds the row lock and saves."""
    ablation.state = run_state_next(RunState(ablation.state), to, "This ablation")
