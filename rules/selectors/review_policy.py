"""Which review policy is in force."""

from rules.models import ReviewPolicy, Task


def policy_of(task: Task) -> ReviewPolicy:
    """What is in force; for a task that never had a policy the presets, as an unsaved row of version 0."""
    found = ReviewPolicy.objects.filter(task=task).order_by("-version").first()
    return found or ReviewPolicy(task=task, version=0, draw_key=f"task {task.pk}")
