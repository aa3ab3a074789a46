"""Which review policy is in force."""

from rules.models import ReviewPolicy, Task


def policy_of(task: Task) -> ReviewPolicy:
    """What is in force; for a task that never had a policy the presets, as an unsaved row of version 0.

    Read once for each Task object: one request asks for it in several places. Whoever decides by it inside a
    transaction reads the task there.
    """
    if task.kept_policy is None:
        found = ReviewPolicy.objects.filter(task=task).order_by("-version").first()
        task.kept_policy = found or ReviewPolicy(task=task, version=0, draw_key=f"task {task.pk}")
    return task.kept_policy
