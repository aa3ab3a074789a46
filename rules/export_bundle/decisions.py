"""decisions.json: what was decided on each text of a ruleset and on the policy it was signed under, as it was logged.

Each act repeats an event of the task's chain that is in the bundle, with the event's data: reasons and notes stand
there, and the event's body holds the hash of them. Plain Python, no Django.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rules.manifest import Manifest

SCHEMA = "ruleset-decisions/v1"
APPROVED = "instruction.approved"  # the event whose data names, by its hash, the text that was approved


def act_of(leaf: bytes, body: bytes, data: Mapping[str, Any]) -> dict[str, Any]:
    """One event of the task's chain as decisions.json repeats it; `seq` is its number in that chain."""
    said, act = json.loads(leaf), json.loads(body)
    return {
        "action": act["action"],
        "actor": act["actor"]["name"],
        "at": said["at"],
        "data": dict(data),
        "object": act["object"]["label"],
        "role": act["actor"]["role"],
        "seq": said["seq"],
    }


def decisions_content(manifest: Manifest, acts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The acts under the rule they are about, in the order of the manifest; what is about no rule is of the policy."""
    by_rule: dict[str, list[Mapping[str, Any]]] = {f"#{one.number}": [] for one in manifest.instructions}
    policy: list[Mapping[str, Any]] = []
    for act in acts:
        (by_rule.get(act["object"], policy) if act["action"].partition(".")[0] != "policy" else policy).append(act)
    return {
        "policy": policy,
        "rules": [
            {
                "acts": by_rule[f"#{one.number}"],
                "label": one.label,
                "number": one.number,
                "revision": one.revision,
                "text_sha256": one.text_sha256,
            }
            for one in manifest.instructions
        ],
        "schema": SCHEMA,
    }


def acts_of(decisions: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Every act of decisions.json, in the order of the chain."""
    listed = [*decisions["policy"], *(act for rule in decisions["rules"] for act in rule["acts"])]
    return sorted(listed, key=lambda act: act["seq"])
