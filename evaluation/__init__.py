"""Evaluation of prompts by student models: answers, figures, runs. Nothing below imports it."""
