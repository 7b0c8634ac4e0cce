"""The old address of `kmtl.TaskOutput`, which lives with the tasks."""

from kmtl.tasks.output import TaskOutput

__all__ = ["TaskOutput"]
