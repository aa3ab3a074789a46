"""Reads that join or aggregate for a page."""
