"""Rows of the review: from the imported trace to the published release."""

from rules.models.attention import BiasNotice, CardLook, JudgementContext, PauseReason, ReviewPause, ReviewSession
from rules.models.batches import BatchAct, BatchItem, InstructionTag, ReviewBatch
from rules.models.comments import Comment, CommentVersion
from rules.models.double_review import DoubleBasis, DoubleReview, InstructionImpact, Opinion, Verdict
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
from rules.models.policy import PolicyDecision, PolicyVerdict, RuleRead, SignOffPolicy
from rules.models.publishing import ChannelName, PromptToken, Publication, PublicationKind, Release
from rules.models.review_policy import ReviewPolicy
from rules.models.rulesets import Meaning, Ruleset, RulesetItem, RulesetStatus, Signature
from rules.models.seeds import Seed, SeedAlarm, SeedAnswer, SeedKind
from rules.models.task import Task
from rules.models.traces import ImportReject, ImportState, Split, Trace, TraceImport

__all__ = [
    "OPEN_STATES",
    "BatchAct",
    "BatchItem",
    "BiasNotice",
    "CardLook",
    "ChannelName",
    "Cluster",
    "Comment",
    "CommentVersion",
    "Conflict",
    "ConflictExample",
    "ConflictKind",
    "Decision",
    "DecisionKind",
    "DoubleBasis",
    "DoubleReview",
    "Evidence",
    "EvidenceRole",
    "ImportReject",
    "ImportState",
    "Instruction",
    "InstructionImpact",
    "InstructionOrigin",
    "InstructionStatus",
    "InstructionTag",
    "JudgementContext",
    "MatchKind",
    "Meaning",
    "MicroRule",
    "MicroRuleOrigin",
    "MiningRun",
    "MiningStage",
    "Opinion",
    "PauseReason",
    "PolicyDecision",
    "PolicyVerdict",
    "PromptToken",
    "Publication",
    "PublicationKind",
    "ReasonCode",
    "Release",
    "ReviewBatch",
    "ReviewPause",
    "ReviewPolicy",
    "ReviewSession",
    "Revision",
    "RuleRead",
    "Ruleset",
    "RulesetItem",
    "RulesetStatus",
    "RunMatch",
    "RunState",
    "Seed",
    "SeedAlarm",
    "SeedAnswer",
    "SeedKind",
    "SignOffPolicy",
    "Signature",
    "Split",
    "Suspect",
    "Task",
    "Trace",
    "TraceImport",
    "Verdict",
    "Waiting",
]
