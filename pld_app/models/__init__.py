"""Rows of the platform."""

from pld_app.models.accounts import Domain, Role, User
from pld_app.models.audit import AuditEvent
from pld_app.models.endpoints import EndpointKind, ModelCall, ModelEndpoint, StructuredOutput, WireApi
from pld_app.models.jobs import Job, JobState

__all__ = [
    "AuditEvent",
    "Domain",
    "EndpointKind",
    "Job",
    "JobState",
    "ModelCall",
    "ModelEndpoint",
    "Role",
    "StructuredOutput",
    "User",
    "WireApi",
]
