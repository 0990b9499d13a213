"""Run a command of nnU-Net's with threads for its pools: `python -P FILE CODE COMMAND ARGUMENTS`.

Each process that nnU-Net starts for a pool imports torch, which takes 4 s of CPU. CODE runs before.
"""

import multiprocessing.context
import sys
from importlib.metadata import entry_points
from multiprocessing.pool import ThreadPool

if __name__ == "__main__":
    multiprocessing.context.SpawnContext.Pool = (  # type: ignore[method-assign]
        lambda self, processes=None: ThreadPool(processes)
    )
    code, name = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    exec(code)
    (command,) = entry_points(group="console_scripts", name=name)
    command.load()()
