"""Traces with a known structure of topics, for sizes no real set at hand has: `trace.v1` lines, always the same.

Words are made up of syllables. A topic has a dozen words of its own and shares others with its family of topics, so
that neighbours are alike; the rest are words all topics use. Topic sizes fall like 1/rank^0.7, and in each topic one
label prevails with a minority of the two others, as in the real traces.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

LABELS = ("Allowed", "Forbidden", "Open")
TASK_FIELDS: dict[str, object] = {
    "labels": list(LABELS),
    "input_fields": ["clause", "question"],
    "preamble": "You judge clauses.",
    "domain_field": "",
}
FAMILY_TOPICS = 5
_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kl", "pr", "st", "tr")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "or", "en")


@dataclass(frozen=True)
class Topic:
    name: str
    own: list[str]
    family: list[str]
    label: str


def _words(seed: int) -> Iterator[str]:
    """Distinct made-up words without end."""
    choose = random.Random(seed)
    seen: set[str] = set()
    while True:
        word = "".join(choose.choice(_ONSETS) + choose.choice(_VOWELS) for _ in range(3))
        if word not in seen:
            seen.add(word)
            yield word


def generated_lines(count: int, *, topics: int = 60, seed: int = 1) -> Iterator[bytes]:
    """`count` train traces as lines of JSON in random order of topics; `metadata.yardstick` names the topic."""
    choose = random.Random(seed)
    words = _words(seed)
    common = list(islice(words, 300))
    known = _topics(topics, words, choose)
    weights = [rank**-0.7 for rank in range(1, topics + 1)]
    for number, topic in enumerate(choose.choices(known, weights, k=count)):
        yield json.dumps(_row(number, topic, common, choose)).encode() + b"\n"


def _topics(count: int, words: Iterator[str], choose: random.Random) -> list[Topic]:
    families = [list(islice(words, 8)) for _ in range(-(-count // FAMILY_TOPICS))]
    return [
        Topic(f"topic {n}", list(islice(words, 12)), families[n // FAMILY_TOPICS], choose.choice(LABELS))
        for n in range(count)
    ]


def _row(number: int, topic: Topic, common: list[str], choose: random.Random) -> dict[str, object]:
    label = topic.label if choose.random() < 0.75 else choose.choice(LABELS)
    rule = f"If {_sentence(topic, common, choose, choose.randint(12, 40))}, then label {label}."
    return {
        "id": f"g-{number}",
        "input": {
            "clause": _sentence(topic, common, choose, 60),
            "question": f"Is {topic.own[0]} {topic.own[1]} allowed?",
        },
        "label": label,
        "rationale": _sentence(topic, common, choose, 30),
        "instruction": rule,
        "split": "train",
        "metadata": {"yardstick": topic.name},
    }


def _sentence(topic: Topic, common: list[str], choose: random.Random, length: int) -> str:
    """Three words in ten are the topic's own, one in ten its family's."""
    pools = choose.choices((topic.own, topic.family, common), (3, 1, 6), k=length)
    return " ".join(choose.choice(pool) for pool in pools)
