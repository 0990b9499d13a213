"""`nnUNetv2_train` in a process that ends when the one that started it does, however that ends.

Run as a module with nnU-Net's arguments, with a pipe as standard input that its owner holds open,
and as the first process of a group of its own.
"""

import os
import signal
import threading

_STANDARD_INPUT = 0


def _end_with_owner() -> None:
    # not sys.stdin: whoever ends normally could not close it while this thread reads
    while os.read(_STANDARD_INPUT, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Watch the owner, then do what stock nnU-Net's command does."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    from nnunetv2.run.run_training import run_training_entry

    run_training_entry()


if __name__ == "__main__":
    main()
