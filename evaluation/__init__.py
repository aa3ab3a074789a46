"""Runs of a prompt by a student over labelled examples, and their figures."""
