"""A Ray cluster of a test's own: a head and nodes on addresses of this machine, with a token."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

HEAD, NODES = "127.0.0.2", ("127.0.0.3", "127.0.0.4")


class RayCluster:
    """Daemons of `ray start --block`; the head has no CPU to lend, each node has one, or what it
    is added with: GPUs are those that it says it has.

    Python finds modules in `path` too.
    """

    def __init__(self, root: Path, path: Path, nodes: Sequence[str] = NODES) -> None:
        self._root = root
        token = root / "token"
        token.touch(mode=0o600)
        token.write_text("0123456789abcdef" * 4, encoding="utf-8")
        self.environment = {
            **os.environ,
            "HOME": str(root),
            "PYTHONPATH": os.pathsep.join([str(path), str(Path(__file__).parents[1])]),
            "RAY_TMPDIR": str(root),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "3",
            "OMP_NUM_THREADS": "1",
        }
        with socket.socket() as free:
            free.bind((HEAD, 0))
            self.address = f"{HEAD}:{free.getsockname()[1]}"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        port = self.address.rpartition(":")[2]
        self._start(HEAD, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        assert self._is_up(HEAD), self._log(HEAD).read_text(encoding="utf-8")
        for node in nodes:
            self.add(node)

    def add(self, node: str, *, cpus: int = 1, gpus: int = 0) -> None:
        """Start the node, and return when it is up; Ray gives up a start after 30 s: once again."""
        words = (f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}")
        self._start(node, *words)
        if not self._is_up(node):
            self._daemons.pop(node)
            self._start(node, *words)
            assert self._is_up(node), self._log(node).read_text(encoding="utf-8")

    def kill(self, node: str) -> None:
        """Kill all daemons and workers of the node at once, as a power cut does."""
        daemon = self._daemons.pop(node)
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(daemon.pid)
            for process in [parent, *parent.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        daemon.wait()

    def workers(self) -> list[psutil.Process]:
        """Return the processes that train: children of seats."""
        found = []
        for daemon in self._daemons.values():
            for process in psutil.Process(daemon.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "spawn_main" in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def stop(self) -> None:
        """Kill all that is left."""
        for node in list(self._daemons):
            self.kill(node)

    def _is_up(self, node: str) -> bool:
        """Wait until the daemon says that it runs, or has ended."""
        while "Ray runtime started" not in self._log(node).read_text(encoding="utf-8"):
            if self._daemons[node].poll() is not None:
                return False
            time.sleep(0.1)
        return True

    def _log(self, node: str) -> Path:
        return self._root / f"{node}.log"

    def _start(self, node: str, *words: str) -> None:
        common = ["--block", f"--node-ip-address={node}", "--object-store-memory=80000000"]
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *common]
        with self._log(node).open("wb") as log:
            self._daemons[node] = subprocess.Popen(
                ray, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
