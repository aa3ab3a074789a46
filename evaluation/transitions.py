"""The state machines of evaluation runs and ablations (the same table as for mining runs), and of loops."""

from django.utils.translation import gettext as _

from evaluation.models import Ablation, EvaluationRun, LoopState, ResolutionLoop
from rules.exceptions import InvalidTransition
from rules.models import RunState
from rules.transitions import run_state_next


def evaluation_run_move(run: EvaluationRun, to: RunState) -> None:
    """Set the state in memory; the caller holds the row lock and saves."""
    run.state = run_state_next(RunState(run.state), to, "This evaluation run")


def ablation_move(ablation: Ablation, to: RunState) -> None:
    """Set the state in memory; the caller holds the row lock and saves."""
    ablation.state = run_state_next(RunState(ablation.state), to, "This ablation")


_LOOP_NEXT: dict[LoopState, frozenset[LoopState]] = {
    LoopState.QUEUED: frozenset({LoopState.RUNNING, LoopState.FAILED, LoopState.CANCELLED}),
    LoopState.RUNNING: frozenset(
        {LoopState.WAITING, LoopState.PAUSED, LoopState.STOPPED, LoopState.FAILED, LoopState.CANCELLED}
    ),
    LoopState.WAITING: frozenset({LoopState.QUEUED, LoopState.RUNNING, LoopState.FAILED, LoopState.CANCELLED}),
    LoopState.PAUSED: frozenset({LoopState.QUEUED, LoopState.FAILED, LoopState.CANCELLED}),
}


def loop_move(loop: ResolutionLoop, to: LoopState) -> None:
    """Set the state in memory; the caller holds the row lock and saves."""
    current = LoopState(loop.state)
    if to not in _LOOP_NEXT.get(current, frozenset()):
        text = _("This loop is %(state)s and cannot become %(to)s.")
        raise InvalidTransition(text % {"state": str(current.label).lower(), "to": str(to.label).lower()})
    loop.state = to
