"""Writes: one keyword-only function per business action, each one transaction with one audit event."""
