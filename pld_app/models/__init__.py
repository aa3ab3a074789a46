"""Rows of the platform."""

from pld_app.models.accounts import Domain, Role, User
from pld_app.models.audit import AuditChain, AuditEvent
from pld_app.models.endpoints import EndpointKind, ModelCall, ModelEndpoint, StructuredOutput, WireApi
from pld_app.models.jobs import Job, JobState
from pld_app.models.seal import (
    AuditAlarm,
    AuditKey,
    AuditKeyRevocation,
    AuditSink,
    Checkpoint,
    CheckpointCopy,
    SealedLeaf,
    SealedNode,
)

__all__ = [
    "AuditAlarm",
    "AuditChain",
    "AuditEvent",
    "AuditKey",
    "AuditKeyRevocation",
    "AuditSink",
    "Checkpoint",
    "CheckpointCopy",
    "Domain",
    "EndpointKind",
    "Job",
    "JobState",
    "ModelCall",
    "ModelEndpoint",
    "Role",
    "SealedLeaf",
    "SealedNode",
    "StructuredOutput",
    "User",
    "WireApi",
]
