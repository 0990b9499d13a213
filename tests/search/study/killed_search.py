"""A search whose every optimizer step is written to a log that the test owns.

Worker processes import this file as their main module, so the wrapper is in them too.
"""

import os
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from archspec.nnunet.dataset import find_dataset
from archspec.training.step import Stepper
from search.space.space import load_space
from search.study.run import run
from search.study.task import SearchTask
from search.trials.host import TrainingHost

_step = Stepper.step


def logged_step(*args: Any) -> torch.Tensor:
    """Append the segment's seed, which only this trial and rung have; then take the step."""
    line = f"{torch.initial_seed()}\n".encode()
    file = os.open(os.environ["STEP_LOG"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, line)
    os.close(file)
    time.sleep(0.02)  # slow enough to be killed inside a segment
    return _step(*args)


Stepper.step = logged_step  # type: ignore[method-assign]

if __name__ == "__main__":
    space, out, trials, engine = sys.argv[1:5]
    run(
        SearchTask(
            load_space(Path(space)),
            find_dataset("902"),
            Path(out),
            int(trials),
            TrainingHost(seed=5),
        ),
        resume=True,
        on_event=lambda event: print(event, flush=True),
        make_engine=pkgutil.resolve_name(engine),
    )
