"""Reads that join, prefetch or aggregate; they write nothing."""
