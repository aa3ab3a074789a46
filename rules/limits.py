"""Limits of what is taken in; docs/traces.md states them for people."""

MAX_FIELD_CHARS = 64 * 1024
MAX_INSTRUCTION_CHARS = 4000
MAX_LINE_BYTES = 1024 * 1024
MAX_JSON_DEPTH = 20
MAX_STORED_REJECTS = 10_000
