"""Baselines that ask no student: the majority label, the teacher's own labels, the vote of the nearest neighbours."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import batched
from typing import TYPE_CHECKING

import numpy as np
from django.utils.translation import gettext as _

from evaluation.models import EvaluationRun, Example, Prediction, PredictionOutcome, PromptKind
from evaluation.neighbours import tfidf, vote
from evaluation.selectors.runs import labelled
from pld_app.errors import InvalidInput
from pld_app.model_edge import CallRequest, EmbeddingBody, ModelUnavailable
from pld_app.model_edge.ledger import recorded_calls
from pld_app.models import ModelEndpoint
from rules.models import Split

if TYPE_CHECKING:
    from evaluation.neighbours import Floats, Matrix

EMBED_BATCH = 64
BATCH = 500
EMBED_PURPOSE = "embed_example"


def baseline_predictions(
    run: EvaluationRun, open_ids: Sequence[int], *, should_stop: Callable[[], bool]
) -> Iterator[Prediction]:
    """Predictions for these examples of the run, in order; fewer when `should_stop` says so.

    Raises InvalidInput when the dataset lacks what the baseline needs, ModelUnavailable as the embedding endpoint does.
    """
    match run.kind:
        case PromptKind.MAJORITY:
            return _same(run, open_ids, _majority(run))
        case PromptKind.TEACHER:
            return _teacher(run, open_ids)
        case _:
            return _nearest(run, open_ids, should_stop)


def _majority(run: EvaluationRun) -> str:
    """The most frequent train label; of equals the one the task names first."""
    counts = Counter(example.label for example in labelled(run.dataset_id, Split.TRAIN))
    if not counts:
        raise InvalidInput(_("The dataset has no train examples, so there is no majority label to take from them."))
    return max(run.labels, key=lambda label: counts[label])


def _same(run: EvaluationRun, open_ids: Sequence[int], label: str) -> Iterator[Prediction]:
    for example_id in open_ids:
        yield Prediction(run=run, example_id=example_id, label=label)


def _teacher(run: EvaluationRun, open_ids: Sequence[int]) -> Iterator[Prediction]:
    said = dict(Example.objects.filter(dataset_id=run.dataset_id).values_list("pk", "teacher_label"))
    if not any(said[example_id] for example_id in open_ids):
        raise InvalidInput(_("No example carries a label of the teacher's own (metadata.teacher_label)."))
    for example_id in open_ids:
        if said[example_id]:
            yield Prediction(run=run, example_id=example_id, label=said[example_id])
        else:
            problem = _("The teacher gave no label.")
            yield Prediction(run=run, example_id=example_id, outcome=PredictionOutcome.NO_ANSWER, problem=problem)


def _nearest(run: EvaluationRun, open_ids: Sequence[int], should_stop: Callable[[], bool]) -> Iterator[Prediction]:
    train = labelled(run.dataset_id, Split.TRAIN)
    if not train:
        raise InvalidInput(_("The dataset has no train examples, so there are no neighbours to ask."))
    if not open_ids:
        return
    try:
        known, asked = _Vectors(run, should_stop).of([one.example_id for one in train], open_ids)
    except _Stopped:
        return
    labels = [one.label for one in train]
    for part in batched(range(len(open_ids)), BATCH):
        if should_stop():
            return
        for place, label in zip(part, vote(asked[part[0] : part[-1] + 1], known, labels, run.k or 1), strict=True):
            yield Prediction(run=run, example_id=open_ids[place], label=label)


class _Stopped(Exception):
    """The run is to stop before all vectors are there; what was embedded is recorded."""


class _Vectors:
    """Vectors of examples: from the embedding endpoint of the run, else TF-IDF fitted on the train examples."""

    def __init__(self, run: EvaluationRun, should_stop: Callable[[], bool]) -> None:
        self.run = run
        self.should_stop = should_stop

    def of(self, train: Sequence[int], asked: Sequence[int]) -> "tuple[Matrix, Matrix]":
        if self.run.embedder is None:
            return tfidf(list(self._texts(train)), list(self._texts(asked)))
        return self._embedded(self.run.embedder, train), self._embedded(self.run.embedder, asked)

    def _texts(self, keys: Sequence[int]) -> Iterator[str]:
        """The input fields of each example in the task's order, a line each."""
        fields = self.run.task.input_fields
        for part in batched(keys, BATCH):
            inputs = Example.objects.only("input").in_bulk(part)
            for key in part:
                yield "\n".join(str(inputs[key].input.get(field, "")) for field in fields)

    def _embedded(self, embedder: ModelEndpoint, keys: Sequence[int]) -> "Floats":
        """Unit vectors of shape (keys, dimensions). The same text is embedded once for all runs."""
        parts: dict[int, Floats] = {}
        requests = (
            CallRequest(key=str(number), purpose=EMBED_PURPOSE, body=EmbeddingBody(tuple(texts)))
            for number, texts in enumerate(batched(self._texts(keys), EMBED_BATCH))
        )
        for recorded in recorded_calls(embedder, requests, scope="", should_stop=self.should_stop, run=str(self.run)):
            if recorded.vectors is None:
                raise ModelUnavailable(recorded.error or _("The embedding endpoint gave no vectors."))
            parts[int(recorded.request.key)] = recorded.vectors.astype(np.float64)
        if sum(map(len, parts.values())) != len(keys):
            raise _Stopped
        found = np.concatenate([parts[number] for number in sorted(parts)])
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.where(norms == 0, 1, norms)
