"""A student whose behaviour is a function of its system prompt: a real server that applies the instructions it reads.

`World` holds what is true (which cue in a text means which label), makes examples, and knows what any prompt is worth:

    world = World.example()                     # three labels, eight cues
    texts = world.examples(200, seed=1)         # of (text, gold label)
    with scripted_student(world) as stub:       # give stub.url to an endpoint
        ...                                     # evaluate, ablate, mend
    world.macro_f1(prompt, texts)               # what the product must report, exactly

Instructions are read from the numbered lines of "## Instructions" in the order they stand. The student knows this
grammar, whatever stands around it in the line:

    If the text mentions "CUE", then label LABEL.
    If the text mentions "CUE" but not "OTHER", then label LABEL.
    Otherwise, label LABEL.

The first line that applies decides. Without one it says what `World.habit` says of the text: its zero-shot behaviour.
From "## Examples" it takes cues as well: it answers an input it was shown as it was shown. `error_rate` of its answers
are wrong, and `malformed_rate` are no JSON: which ones is a function of the text and `noise_seed` alone, or of the
request's seed too with `noisy_by_seed`, so that repetitions differ.
"""

import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Self

from sklearn.metrics import f1_score

from tests.stub_server import Plan, StubRequest, StubServer, completion, good_reply, response, stub_server

_LINE = re.compile(r"^\d+\.\s+(.*)$")
_RULE = re.compile(r'if the text mentions "([^"]+)"(?: but not "([^"]+)")?, then label ([\w-]+)', re.IGNORECASE)
_OTHERWISE = re.compile(r"\botherwise, label ([\w-]+)", re.IGNORECASE)
_FILLER = ("the", "party", "shall", "under", "this", "agreement", "and", "its", "annexes", "as", "amended", "later")


@dataclass(frozen=True)
class Cue:
    """A text with `word` in it, and without `unless`, carries `label`. `share` is how often examples hold it."""

    word: str
    label: str
    unless: str = ""
    share: float = 1.0

    @property
    def instruction(self) -> str:
        """The true rule, in the student's grammar."""
        return rule_text(self.word, self.label, unless=self.unless)


@dataclass(frozen=True)
class Rule:
    """An instruction as the student understood it; `word` empty applies to every text."""

    word: str
    unless: str
    label: str

    def applies(self, text: str) -> bool:
        words = text.casefold()
        return (self.word.casefold() in words) and not (self.unless and self.unless.casefold() in words)


def rule_text(word: str, label: str, *, unless: str = "") -> str:
    """An instruction the student understands."""
    but = f' but not "{unless}"' if unless else ""
    return f'If the text mentions "{word}"{but}, then label {label}.'


def otherwise_text(label: str) -> str:
    """The instruction for every text that no earlier one speaks of."""
    return f"Otherwise, label {label}."


def rules_in(prompt: str) -> list[Rule]:
    """The instructions of a compiled prompt that the student understands, in order. Pure: the prompt alone decides."""
    found = []
    for line in _section(prompt, "## Instructions"):
        numbered = _LINE.match(line)
        if numbered is None:
            continue
        found += [Rule(one.group(1), one.group(2) or "", one.group(3)) for one in _RULE.finditer(numbered.group(1))]
        found += [Rule("", "", match.group(1)) for match in _OTHERWISE.finditer(numbered.group(1))]
    return found


def shots_in(prompt: str) -> dict[str, str]:
    """Label by input message of the examples a few-shot prompt shows."""
    lines = _section(prompt, "## Examples")
    shown = {}
    for asked, answered in pairwise(lines):
        if asked.startswith("Input: ") and answered.startswith("Answer: "):
            shown[asked.removeprefix("Input: ")] = str(json.loads(answered.removeprefix("Answer: "))["label"])
    return shown


def _section(prompt: str, heading: str) -> list[str]:
    lines = prompt.splitlines()
    if heading not in lines:
        return []
    rest = lines[lines.index(heading) + 1 :]
    end = next((place for place, line in enumerate(rest) if line.startswith("## ")), len(rest))
    return rest[:end]


@dataclass(frozen=True)
class World:
    """What is true, and what the student is like. `habit` is its label where no instruction and no shot speaks."""

    labels: tuple[str, ...]
    cues: tuple[Cue, ...]
    rest_label: str
    habit: str
    error_rate: float = 0.0
    malformed_rate: float = 0.0
    noise_seed: int = 0
    noisy_by_seed: bool = False
    fields: tuple[str, ...] = ("clause", "question")
    extra: dict[str, str] = field(default_factory=dict)

    @classmethod
    def example(cls, **changes: object) -> Self:
        """Three labels and eight cues, two of them with an exception; the habit is the first label."""
        cues = (
            Cue("permanent copies", "Breach"),
            Cue("archive", "Compliant", unless="personal data"),
            Cue("personal data", "Breach"),
            Cue("written consent", "Compliant"),
            Cue("third parties", "Breach", unless="written consent"),
            Cue("reasonable time", "Unclear"),
            Cue("industry practice", "Unclear"),
            Cue("return on request", "Compliant"),
        )
        made = cls(labels=("Compliant", "Breach", "Unclear"), cues=cues, rest_label="Unclear", habit="Compliant")
        return replace(made, **changes)  # type: ignore[arg-type]  # named fields of this class

    # What is true.

    def gold(self, text: str) -> str:
        """The true label: of the first cue that speaks."""
        rules = (Rule(cue.word, cue.unless, cue.label) for cue in self.cues)
        return next((rule.label for rule in rules if rule.applies(text)), self.rest_label)

    @property
    def instructions(self) -> list[str]:
        """The true rules in order, the last for every other text: with all of them nothing is answered wrongly."""
        return [*(cue.instruction for cue in self.cues), otherwise_text(self.rest_label)]

    def examples(self, count: int, *, seed: int = 0) -> list[tuple[str, str]]:
        """`count` different texts with their true labels; about an eighth hold no cue, some hold two."""
        choose = random.Random(f"{seed}")
        texts: dict[str, str] = {}
        while len(texts) < count:
            holds = choose.choices([0, 1, 2], weights=[1, 5, 2])[0]
            words = [cue.word for cue in choose.choices(self.cues, [cue.share for cue in self.cues], k=holds)]
            filler = choose.choices(_FILLER, k=6)
            places = [*filler, *words]
            choose.shuffle(places)
            text = f"No. {seed}-{len(texts)}: " + " ".join(places) + "."
            texts[text] = self.gold(text)
        return list(texts.items())

    # What the student does.

    def says(self, prompt: str, message: str, *, seed: int = 0) -> str | None:
        """The student's label for a user message under a system prompt; None for a reply that is no JSON."""
        noise = self._noise(message, seed)
        if noise < self.malformed_rate:
            return None
        label = self._label(prompt, message)
        if noise < self.malformed_rate + self.error_rate:
            others = [one for one in self.labels if one != label]
            return others[self._digest(f"other {message}") % len(others)]
        return label

    def _label(self, prompt: str, message: str) -> str:
        shown = shots_in(prompt)
        if message in shown:
            return shown[message]
        text = self.text_of(message)
        return next((rule.label for rule in rules_in(prompt) if rule.applies(text)), self.habit)

    def text_of(self, message: str) -> str:
        """The text that is judged: the first of `fields` where the message is JSON, else all of it."""
        try:
            return str(json.loads(message)[self.fields[0]])
        except (ValueError, KeyError, TypeError):
            return message

    def _noise(self, message: str, seed: int) -> float:
        key = f"{self.noise_seed} {seed if self.noisy_by_seed else ''} {message}"
        return self._digest(key) % 1_000_000 / 1_000_000

    @staticmethod
    def _digest(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    # What the product must report.

    def answers(self, prompt: str, texts: Sequence[str], *, seed: int = 0) -> list[str | None]:
        """The student's labels for these texts, each asked as `{field: text}` with the first of `fields`."""
        return [self.says(prompt, self.message(text), seed=seed) for text in texts]

    def message(self, text: str) -> str:
        """The default user message for a text: the first field holds it, the others what `extra` says."""
        values = {name: self.extra.get(name, "May copies be kept?") for name in self.fields} | {self.fields[0]: text}
        return json.dumps(values, ensure_ascii=False)

    def macro_f1(self, prompt: str, examples: Sequence[tuple[str, str]], *, seed: int = 0) -> float:
        """Macro-F1 (by scikit-learn) of this prompt over (text, gold label); no JSON counts as wrong."""
        said = [label or "(none)" for label in self.answers(prompt, [text for text, _gold in examples], seed=seed)]
        gold = [label for _text, label in examples]
        seen = [label for label in self.labels if label in gold or label in said]
        return float(f1_score(gold, said, labels=seen, average="macro", zero_division=0))

    # The server.

    def answer(self, request: StubRequest) -> Plan:
        """The reply to one request; what is no question of an evaluation is answered as the plain stub does."""
        system = next((str(one["content"]) for one in request.messages if one.get("role") == "system"), "")
        schema = request.schema or {}
        if "label" not in schema.get("properties", {}) or not request.messages:
            return good_reply(request)
        seed = int(request.body.get("seed") or 0)
        label = self.says(system, str(request.messages[-1]["content"]), seed=seed)
        content = "I am not sure." if label is None else json.dumps({"label": label})
        return Plan(response(content) if request.path.endswith("/responses") else completion(content))


@contextmanager
def scripted_student(world: World, *, latency_s: float = 0.0) -> Iterator[StubServer]:
    """Serve the world's student on a free loopback port until the block ends."""
    with stub_server(world.answer, latency_s=latency_s) as stub:
        yield stub
