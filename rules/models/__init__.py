"""Rows of the review: from the imported trace to the published release."""

from rules.models.findings import Conflict, ConflictExample, ConflictKind, MatchKind, RunMatch, Suspect
from rules.models.instructions import (
    Decision,
    DecisionKind,
    Evidence,
    EvidenceRole,
    Instruction,
    InstructionOrigin,
    InstructionStatus,
    ReasonCode,
    Revision,
    Waiting,
)
from rules.models.mining import OPEN_STATES, Cluster, MicroRule, MicroRuleOrigin, MiningRun, MiningStage, RunState
from rules.models.publishing import ChannelName, PromptToken, Publication, PublicationKind, Release
from rules.models.rulesets import Meaning, Ruleset, RulesetItem, RulesetStatus, Signature
from rules.models.task import Task
from rules.models.traces import ImportReject, ImportState, Split, Trace, TraceImport

__all__ = [
    "OPEN_STATES",
    "ChannelName",
    "Cluster",
    "Conflict",
    "ConflictExample",
    "ConflictKind",
    "Decision",
    "DecisionKind",
    "Evidence",
    "EvidenceRole",
    "ImportReject",
    "ImportState",
    "Instruction",
    "InstructionOrigin",
    "InstructionStatus",
    "MatchKind",
    "Meaning",
    "MicroRule",
    "MicroRuleOrigin",
    "MiningRun",
    "MiningStage",
    "PromptToken",
    "Publication",
    "PublicationKind",
    "ReasonCode",
    "Release",
    "Revision",
    "Ruleset",
    "RulesetItem",
    "RulesetStatus",
    "RunMatch",
    "RunState",
    "Signature",
    "Split",
    "Suspect",
    "Task",
    "Trace",
    "TraceImport",
    "Waiting",
]
