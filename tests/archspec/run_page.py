"""Import every module of the packages, then run the examples of a page twice.

Once imported, a module stands in its package under its own name and hides a function of that name;
so one call, before all is imported, proves nothing. Arguments: the page, a folder whose copies the
rounds work in, an empty folder for these, and the file of a pool that trains nothing.
"""

import doctest
import importlib
import os
import pkgutil
import re
import runpy
import shutil
import sys
from pathlib import Path

import archspec
import blocks
import search

OWN = ("archspec", "blocks", "search")


def import_everything() -> None:
    """Import all modules; one that needs what is not installed here is left out."""
    for package in (archspec, blocks, search):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name is None or error.name.startswith(OWN):
                    raise


def examples(page: Path) -> doctest.DocTest:
    """Return the console examples of the page as one session."""
    blocks_ = re.findall(r"```pycon\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return doctest.DocTestParser().get_doctest("\n".join(blocks_), {}, page.name, str(page), 0)


def main(page: Path, template: Path, rounds: Path, pool: Path) -> None:
    import_everything()
    import search.study.run

    fake = runpy.run_path(str(pool))["FakePool"]
    search.study.run.WorkerPool = lambda settings, jobs: fake()  # type: ignore[assignment, misc]
    for number in (1, 2):
        place = rounds / str(number)
        shutil.copytree(template, place)
        folders = ("preprocessed", "results")
        os.environ.update({f"nnUNet_{name}": str(place / name) for name in folders})
        os.chdir(place)
        failed, _ = doctest.DocTestRunner().run(examples(page))
        if failed:
            sys.exit(1)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
