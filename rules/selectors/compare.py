"""Two rulesets or releases of a task beside each other."""

from dataclasses import dataclass
from typing import Any

from django.http import Http404
from django.utils.translation import gettext as _

from rules.changes import Changes, SideRow, Word, changes_between, side_by_side, word_changes
from rules.manifest import Manifest, manifest_read
from rules.models import Release, Ruleset, Task
from rules.selectors.rulesets import ruleset_compile


@dataclass(frozen=True)
class Side:
    """One of the two, a ruleset (`ref` "7") or a release ("v3"), with its content; a draft is compiled as it is."""

    ref: str
    title: str
    ruleset: Ruleset
    release: Release | None
    manifest: Manifest


@dataclass(frozen=True)
class FrameChange:
    """A part of the prompt around the instructions, or of the policy, that differs."""

    name: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Comparison:
    old: Side
    new: Side
    changes: Changes
    frame: list[FrameChange]
    rows: list[SideRow]

    @property
    def is_empty(self) -> bool:
        return self.changes.is_empty and not self.frame


@dataclass(frozen=True)
class Choice:
    ref: str
    words: str


def choices(task: Task) -> list[Choice]:
    """What can be compared: releases, then rulesets, newest first. Two queries."""
    releases = task.releases.select_related("ruleset").defer("prompt", "ruleset__prompt", "ruleset__manifest")
    rulesets = task.rulesets.defer("prompt", "manifest")
    return [
        *(
            Choice(f"v{one.version}", _("Release %(n)s: %(ruleset)s") % {"n": one, "ruleset": one.ruleset})
            for one in releases
        ),
        *(
            Choice(
                str(one.number),
                _("%(ruleset)s, %(state)s") % {"ruleset": one, "state": str(one.get_status_display()).lower()},
            )
            for one in rulesets
        ),
    ]


def side_get(task: Task, ref: str) -> Side:
    """The ruleset or release of this task that `ref` names, or 404."""
    digits = ref.removeprefix("v")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise Http404
    rulesets = Ruleset.objects.select_related("task", "release", "composed_by").filter(task=task)
    wanted = {"release__version": int(digits)} if ref.startswith("v") else {"number": int(digits)}
    ruleset = rulesets.filter(**wanted).first()
    if ruleset is None:
        raise Http404
    release = getattr(ruleset, "release", None)
    title = _("Release %(n)s") % {"n": release} if ref.startswith("v") and release else str(ruleset)
    return Side(ref, title, ruleset, release, _content(ruleset))


def _content(ruleset: Ruleset) -> Manifest:
    try:
        return manifest_read(bytes(ruleset.manifest or b"") or ruleset_compile(ruleset).manifest)
    except ValueError as error:  # a draft that could not be frozen
        raise Http404 from error


def comparison(old: Side, new: Side) -> Comparison:
    """What `new` changes against `old`."""
    before, after = old.manifest.instructions, new.manifest.instructions
    return Comparison(
        old=old,
        new=new,
        changes=changes_between(before, after),
        frame=frame_changes(old.manifest, new.manifest),
        rows=side_by_side(before, after),
    )


def frame_changes(old: Manifest, new: Manifest) -> list[FrameChange]:
    """Parts around the instructions that differ, word by word."""
    parts = [
        (_("Preamble"), old.preamble, new.preamble),
        (_("Labels"), ", ".join(old.labels), ", ".join(new.labels)),
        (_("Output contract"), old.output_contract, new.output_contract),
        (_("Sign-off policy"), _policy_words(old), _policy_words(new)),
    ]
    return [FrameChange(name, word_changes(was, now)) for name, was, now in parts if was != now]


def _policy_words(manifest: Manifest) -> str:
    policy = manifest.policy
    words = [
        _("version %(n)s") % {"n": policy.version} if policy.version else "",
        _("%(n)s signers") % {"n": policy.signers_required},
        _("of %(roles)s") % {"roles": ", ".join(policy.signer_roles)},
        _("at least %(n)s signatories") % {"n": policy.signatories_required} if policy.signatories_required else "",
        _("from %(domains)s") % {"domains": ", ".join(policy.domains)} if policy.domains else "",
    ]
    return ", ".join(word for word in words if word)


def comparison_json(compared: Comparison) -> dict[str, Any]:  # JSON values
    """The comparison as data, each place counted from 1; schema "ruleset-comparison/v1"."""
    changes = compared.changes
    return {
        "schema": "ruleset-comparison/v1",
        "task": compared.new.ruleset.task.slug,
        "old": _side_json(compared.old),
        "new": _side_json(compared.new),
        "kept": changes.kept,
        "added": [one.model_dump() for one in changes.added],
        "removed": [one.model_dump() for one in changes.removed],
        "reworded": [
            {"number": one.new.number, "old": one.old.text, "new": one.new.text, "approved_by": one.new.approved_by}
            for one in changes.reworded
        ],
        "moved": [
            {"number": one.instruction.number, "from": one.old_place, "to": one.new_place} for one in changes.moved
        ],
        "relabelled": [
            {"number": one.new.number, "old": one.old.label, "new": one.new.label} for one in changes.relabelled
        ],
        "frame": [{"part": one.name, "words": [list(word) for word in one.words]} for one in compared.frame],
    }


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "ruleset": side.ruleset.number,
        "name": side.ruleset.name,
        "status": str(side.ruleset.status),
        "release": side.release.version if side.release else None,
        "manifest_sha256": side.ruleset.manifest_sha256 or None,
    }
