"""The tasks by name."""

from archspec.phantom.axis import AxisTask
from archspec.phantom.detail import DetailTask
from archspec.phantom.few_cases import DataTask
from archspec.phantom.mixed_ct import MixedCTTask
from archspec.phantom.mixed_mri import MixedMRITask
from archspec.phantom.reach import ReachTask
from archspec.phantom.recall import RecallTask
from archspec.phantom.skip_noise import SkipNoiseTask
from archspec.phantom.task import Task
from archspec.phantom.trace import TraceTask
from archspec.spec.words import did_you_mean
from blocks.errors import SpecError, argument

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
        raise SpecError(
            "not a task",
            where=argument("task", name),
            allowed=", ".join(TASKS),
            suggestion=did_you_mean(name, list(TASKS)),
        )
    return TASKS[name]


def table() -> str:
    """Return two lines per task: its name and what it asks, then its knob with the levels."""
    size = max(map(len, TASKS)) + 2
    return "\n".join(
        f"{task.name:{size}}{task.summary}\n{'':{size}}{task.knob}: {', '.join(task.levels)}"
        for task in TASKS.values()
    )
