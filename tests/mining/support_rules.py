"""Micro-rules of a customer-support desk: another domain and another shape than the sets the defaults were found on."""

from __future__ import annotations

import random

LABELS = ("Refund", "Replace", "Escalate", "Decline")

# Topic: its size, the labels that occur in it with their weights, its things, what happens to them, circumstances.
_TOPICS: dict[str, tuple[int, dict[str, int], list[str], list[str], list[str]]] = {
    "late delivery": (
        140,
        {"Refund": 6, "Escalate": 3, "Decline": 1},
        ["the parcel", "the shipment", "the courier's delivery"],
        ["arrived late", "missed its promised date", "came after the deadline"],
        ["tracking shows a delay of over a week", "the carrier reports a depot backlog", "express shipping was paid"],
    ),
    "damaged item": (
        115,
        {"Replace": 7, "Refund": 2, "Decline": 1},
        ["the item", "the product", "the unboxed article"],
        ["came broken", "shows cracks", "was crushed in transit"],
        ["a photo of the dent is attached", "the box was already torn", "glass parts are shattered"],
    ),
    "wrong size": (
        95,
        {"Replace": 6, "Decline": 2},
        ["the garment", "the pair of shoes", "the clothing"],
        ["does not fit", "is a size too small", "runs larger than the chart"],
        ["the tag is still on the sleeve", "the customer ordered two sizes to try", "the waist measure differs"],
    ),
    "double charge": (
        80,
        {"Refund": 8, "Escalate": 2},
        ["the card", "the bank statement", "the invoice amount"],
        ["was charged twice", "shows a duplicate payment", "was debited again"],
        ["the bank reference is on both lines", "one debit is still pending", "a second authorisation was captured"],
    ),
    "subscription": (
        70,
        {"Refund": 3, "Decline": 5, "Escalate": 1},
        ["the membership", "the subscription", "the yearly plan"],
        ["renewed by itself", "was not cancelled in time", "was extended unasked"],
        ["a reminder mail was sent", "the trial ended yesterday", "the renewal notice was opened"],
    ),
    "locked account": (
        60,
        {"Escalate": 9, "Decline": 1},
        ["the user's account", "the login", "the password reset"],
        ["is locked", "fails at sign-in", "leads to an error"],
        ["two-factor codes never arrive", "several attempts came from abroad", "the recovery address is outdated"],
    ),
    "missing accessory": (
        45,
        {"Replace": 8, "Refund": 1},
        ["the charger", "the cable", "the adapter of the set"],
        ["is missing from the package", "was not enclosed", "is lacking"],
        ["the packing list names the plug", "the seal of the accessory bag is intact", "the manual shows three pieces"],
    ),
    "warranty": (
        35,
        {"Replace": 4, "Decline": 4, "Escalate": 1},
        ["the warranty", "the guarantee", "the cover for defects"],
        ["has expired", "is over", "ended after two years"],
        ["the serial number is of the first batch", "a repair shop opened the casing", "wear of the battery is usual"],
    ),
    "rude agent": (
        28,
        {"Escalate": 6, "Decline": 1},
        ["a colleague in the call", "the chat agent", "the support representative"],
        ["was impolite", "used an insulting tone", "hung up"],
        ["the recording confirms shouting", "the transcript holds a slur", "the manager was asked for by name"],
    ),
    "voucher": (
        20,
        {"Refund": 1, "Decline": 5},
        ["the coupon code", "the voucher", "the discount"],
        ["is refused", "was used before", "does not apply"],
        ["the minimum basket is not reached", "the promotion ended on Sunday", "the gift balance is zero"],
    ),
    "allergy": (
        12,
        {"Escalate": 5, "Refund": 1},
        ["the cream", "the cosmetic", "the lotion"],
        ["caused a rash", "led to a skin reaction", "lists no allergens"],
        ["a doctor was seen", "the swelling lasts", "the batch is under recall"],
    ),
}  # fmt: skip
_OPENINGS = ["If", "When", "Where", "In a ticket in which"]
_EVERYWHERE = [
    "and the customer wrote within the policy period",
    "and the order is verified in the shop system",
    "even though the customer insists on a quick answer",
    "and the agent has read the whole ticket",
    "whatever tone the message has",
    "and no earlier ticket on the order is open",
]
_ENDINGS = [
    "then label {label}; goodwill is not the point",
    "label {label}, since the policy covers it",
    "label the ticket {label}",
    "answer {label} and note the order number",
]


def support_rules(seed: int = 0, *, crossed: bool = True) -> tuple[list[str], list[str], list[str]]:
    """700 texts in random order, the label of each and its topic; 11 topics from 140 down to 12.

    `crossed` combines every thing of a topic with every event; else each thing has its own event, so that the three
    wordings of a topic share no word but their circumstances.
    """
    choose = random.Random(seed)
    rows = []
    for topic, (size, labels, things, events, circumstances) in _TOPICS.items():
        for _ in range(size):
            label = choose.choices(list(labels), list(labels.values()))[0]
            wording = choose.randrange(3)
            event = events[choose.randrange(3) if crossed else wording]
            parts = [f"{choose.choice(_OPENINGS)} {things[wording]} {event}"]
            if choose.random() < 0.8:
                parts.append(f"and {choose.choice(circumstances)}")
            parts += choose.sample(_EVERYWHERE, choose.randint(0, 2))
            rows.append((f"{' '.join(parts)}, {choose.choice(_ENDINGS).format(label=label)}.", label, topic))
    choose.shuffle(rows)
    texts, labels_of, topics = (list(column) for column in zip(*rows, strict=True))
    return texts, labels_of, topics
