"""Run a search from Python: what `archspec search` does, as one function."""

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna

from archspec.nnunet.dataset import find_dataset
from archspec.training.devices import devices_for
from blocks.base import SpecError
from search.retrain.confirm import confirm
from search.space.control import control_space
from search.space.space import Space, load_space
from search.study.loop import Event
from search.study.record import read_run
from search.study.run import run as run_study
from search.study.task import SearchTask
from search.trials.host import TrainingHost

CONFIRM_SEEDS = 3
"""Trainings of each point of the front at the end, where test cases are held out."""


def run(
    space: str | Path | Space,
    *,
    data: int | str,
    trials: int,
    out: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    stopper: str | None = None,
    max_gflops: float | None = None,
    max_params: float | None = None,
    max_memory: str | None = None,
    test_share: float | None = None,
    confirm_seeds: int | None = None,
    control: bool = False,
    jobs: int = 1,
    threads: int = 1,
    device: str = "auto",
    configuration: str = "3d_fullres",
    plans: str = "nnUNetPlans",
    fold: int = 0,
    seed: int = 0,
    on_event: Callable[[Event], None] = lambda event: None,
) -> optuna.Study:
    """Search a space for the front of validation Dice against FLOPs; return the Optuna study.

    The parameters are the options of `archspec search`, and its verbs go on with the folder `out`:
    `report`, `best`, `confirm`. `data` is the id or name of a dataset that nnU-Net preprocessed.
    Trials train in processes of their own, so a script calls this below
    `if __name__ == "__main__":`, as multiprocessing asks of it.

    Raises:
        SpecError: the space, the dataset or the folder is wrong; see `load_space`.
    """
    options = {
        "stopper": stopper,
        "limits.gflops": max_gflops,
        "limits.params": max_params,
        "limits.memory": max_memory,
        "test_share": test_share,
    }
    given = [f"search.{name}={value}" for name, value in options.items() if value is not None]
    loaded = _loaded(space, (*overrides, *given))
    if control:
        loaded = control_space(loaded)
    dataset = find_dataset(data, configuration=configuration, plans_name=plans)
    devices, folder = devices_for(device, jobs), Path(out)
    host = TrainingHost(devices=devices, threads=threads, fold=fold, seed=seed, plans=plans)
    task = SearchTask(loaded, dataset, folder, trials, host)
    study = run_study(task, resume=resume, on_event=on_event)
    seeds = confirm_seeds
    if seeds is None:
        record = read_run(folder)
        seeds = CONFIRM_SEEDS if record is not None and record.test_cases else 0
    if seeds and study.best_trials:
        confirm(folder, seeds=seeds, host=host)
    return study


def _loaded(space: str | Path | Space, overrides: tuple[str, ...]) -> Space:
    if not isinstance(space, Space):
        return load_space(space, overrides=overrides)
    if overrides:
        raise SpecError(
            f"-s {overrides[0]}: the space is loaded already",
            suggestion="give overrides to load_space, or search.run the space's name or file",
        )
    return space
