"""Display names of topics: the words that set each apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log

from rules.mining.arrays import IntArray
from rules.mining.wording import content_words, label_phrase, stem, without_label_phrase


def topic_terms(
    texts: Sequence[str], topics: IntArray, k: int = 3, *, labels: Sequence[str] = ()
) -> dict[int, list[str]]:
    """At most k words per topic, the most telling first, each in its most frequent form; noise (-1) is not named.

    Class-based TF-IDF (Grootendorst 2022): a word's share of the topic's words times log(1 + mean words per topic / its
    count in all topics). A topic without any content word has an empty list.
    """
    phrase = label_phrase(labels)
    counts: dict[int, Counter[str]] = {int(topic): Counter() for topic in sorted(set(topics.tolist())) if topic >= 0}
    forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text, topic in zip(texts, topics.tolist(), strict=True):
        if topic >= 0:
            for word in content_words(without_label_phrase(text, phrase)):
                counts[topic][stem(word)] += 1
                forms[stem(word)][word] += 1
    everywhere: Counter[str] = sum(counts.values(), Counter())
    mean_words = everywhere.total() / max(1, len(counts))
    return {topic: _best(own, everywhere, mean_words, forms, k) for topic, own in counts.items()}


def _best(
    own: Counter[str], everywhere: Counter[str], mean_words: float, forms: dict[str, Counter[str]], k: int
) -> list[str]:
    scores = {word: count * log(1 + mean_words / everywhere[word]) for word, count in own.items()}
    best = sorted(scores, key=lambda word: (-scores[word], word))[:k]
    return [min(forms[word], key=lambda form: (-forms[word][form], form)) for word in best]
