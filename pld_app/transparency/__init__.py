"""The audit log made tamper-evident: chains, a Merkle tree over all events, checkpoints signed by another process.

`merkle` and `note` are plain Python without Django. docs/governance.md describes the record and who may write what.
"""
