"""The tasks by name."""

from archspec.phantom.axis import AxisTask
from archspec.phantom.data import DataTask
from archspec.phantom.detail import DetailTask
from archspec.phantom.mixed_ct import MixedCTTask
from archspec.phantom.mixed_mri import MixedMRITask
from archspec.phantom.reach import ReachTask
from archspec.phantom.recall import RecallTask
from archspec.phantom.skip_noise import SkipNoiseTask
from archspec.phantom.task import Task
from archspec.phantom.trace import TraceTask
from blocks.base import SpecError

_CLASSES: tuple[type[Task], ...] = (
    ReachTask,
    RecallTask,
    TraceTask,
    AxisTask,
    DetailTask,
    SkipNoiseTask,
    DataTask,
    MixedCTTask,
    MixedMRITask,
)

TASKS: dict[str, type[Task]] = {task.name: task for task in _CLASSES}


def task_class(name: str) -> type[Task]:
    """Return the task of that name. Raises: SpecError for an unknown name."""
    if name not in TASKS:
        raise SpecError(f"--task {name}: not a task ({', '.join(TASKS)})")
    return TASKS[name]


def table() -> str:
    """Return one line per task: name, knob, levels, what it asks."""
    rows = [
        (task.name, f"{task.knob}: {', '.join(task.levels)}", task.summary)
        for task in TASKS.values()
    ]
    name_size, levels_size = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        f"{name:{name_size}}  {levels:{levels_size}}  {summary}" for name, levels, summary in rows
    )
