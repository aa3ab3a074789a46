"""Rows of the platform."""

from pld_app.models.accounts import Domain, Role, User
from pld_app.models.audit import AuditChain, AuditEvent, AuditQuery
from pld_app.models.batches import BatchState, ModelBatch, ModelBatchItem
from pld_app.models.endpoints import EndpointKind, ModelCall, ModelEndpoint, StructuredOutput, WireApi
from pld_app.models.factors import Passkey, RecoveryCode, SsoIdentity, TotpDevice
from pld_app.models.jobs import Job, JobState
from pld_app.models.notifications import MailChoice, Notification
from pld_app.models.reauthentication import Ceremony, Method, Reauthentication, ReauthenticationUse, SigningConsent
from pld_app.models.role_grants import GrantStep, RoleGrant, RoleGrantStep
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
from pld_app.models.sessions import SecurityPolicy, UserSession

__all__ = [
    "AuditAlarm",
    "AuditChain",
    "AuditEvent",
    "AuditKey",
    "AuditKeyRevocation",
    "AuditQuery",
    "AuditSink",
    "BatchState",
    "Ceremony",
    "Checkpoint",
    "CheckpointCopy",
    "Domain",
    "EndpointKind",
    "GrantStep",
    "Job",
    "JobState",
    "MailChoice",
    "Method",
    "ModelBatch",
    "ModelBatchItem",
    "ModelCall",
    "ModelEndpoint",
    "Notification",
    "Passkey",
    "Reauthentication",
    "ReauthenticationUse",
    "RecoveryCode",
    "Role",
    "RoleGrant",
    "RoleGrantStep",
    "SealedLeaf",
    "SealedNode",
    "SecurityPolicy",
    "SigningConsent",
    "SsoIdentity",
    "StructuredOutput",
    "TotpDevice",
    "User",
    "UserSession",
    "WireApi",
]
