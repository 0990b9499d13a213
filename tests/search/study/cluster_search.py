"""A search of squares that tells its events on standard output, and waits at each rung for a line.

While it waits, the trial is with its place and goes not on: whatever is killed then, is killed
under that trial. It takes a JSON object: space, out, trials, engine, address, storage, grace,
cpus_per_job, and in `patched` values for globals of modules.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from own_cases import Squares

from search.space.space import load_space
from search.study.loop import Event
from search.study.run import run
from search.study.task import SearchTask
from search.trials.host import training_host
from search.trials.own import own_cases


def main(given: dict[str, Any]) -> None:
    """Search, or go on."""

    def tell(event: Event) -> None:
        print(json.dumps([event.kind, event.number, event.text]), flush=True)
        if event.kind == "rung":
            sys.stdin.readline()

    for name, value in given.get("patched", {}).items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    named = {name: given[name] for name in ("engine", "address", "grace")}
    named["cpus_per_job"] = given.get("cpus_per_job")
    host = training_host("cpu", 1, **named)
    out = Path(given["out"])
    task = SearchTask(
        load_space(given["space"]),
        own_cases(Squares()),
        out,
        given["trials"],
        host,
        storage=given["storage"],
    )
    run(task, resume=(out / "run.json").is_file(), on_event=tell)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
