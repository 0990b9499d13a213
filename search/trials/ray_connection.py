"""Connecting to a Ray cluster, or starting one on this machine, and nobody else's programs."""

import contextlib
import importlib.util
import os
import secrets
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archspec.files import scratch_folder, write_secret
from blocks.errors import SpecError, argument, reason
from search.trials.host import Cluster

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
GUARD = "start Ray everywhere with RAY_AUTH_MODE=token, see docs/cluster.md"
_STORE = 80_000_000
"""Bytes of the object store of a cluster on this machine: tasks and messages are small."""


@contextlib.contextmanager
def connected(cluster: Cluster, jobs: int) -> Iterator[Any]:
    """Yield the module `ray`, connected to the cluster; without an address to a new one here.

    Raises:
        SpecError: Ray is missing, nothing answers there, or anybody could run programs on it.
    """
    if importlib.util.find_spec("ray") is None:
        raise SpecError(
            "Ray is not installed",
            field="engine",
            suggestion='pip install "archspec-seg[cluster]"',
        )
    check_address(cluster.address)
    guard(cluster.address)
    import ray

    if ray.is_initialized():
        raise SpecError("this process is connected to Ray already", field="engine")
    # what becomes of nodes would be printed with the results, and is told by the engine's messages
    ray._private.worker._worker_logs_enabled = False
    # short: sockets below it have long names; 700, which Ray's own default is not
    scratch = contextlib.ExitStack()
    folder = scratch.enter_context(scratch_folder("ray-"))
    try:
        with _own_signals():
            if cluster.address is None:
                ray.init(
                    address="local",
                    num_cpus=jobs * cluster.cpus_per_job,
                    object_store_memory=_STORE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=str(folder),
                )
            else:
                host = cluster.address.rpartition(":")[0]
                ray.init(
                    address=cluster.address,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _node_ip_address=host if is_loopback(cluster.address) else None,
                )
        yield ray
    except (ConnectionError, ray.exceptions.AuthenticationError, ray.exceptions.RpcError) as error:
        raise SpecError(
            f"cannot be used: {reason(error)}", where=argument("address", cluster.address)
        ) from error
    finally:
        ray.shutdown()
        scratch.close()


def check_address(address: str | None) -> None:
    """Refuse what is not host:port; Ray would follow the last cluster of the machine.

    Raises:
        SpecError: see above.
    """
    if address is None:
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        raise SpecError(
            "is not host:port",
            where=argument("address", address),
            allowed="host:port of the head, e.g. 10.0.0.5:6379",
        )


def guard(address: str | None) -> None:
    """See that Ray asks for a token that others cannot read; make one for a cluster of our own.

    Ray's daemons listen on every interface, and run what they are asked to.

    Raises:
        SpecError: there is no token, or others can read it.
    """
    file = Path(os.environ.get(TOKEN_FILE) or Path.home() / ".ray" / "auth_token").expanduser()
    mode = os.environ.get(MODE, "").lower()
    there = bool(os.environ.get(TOKEN)) or file.is_file()
    if address is None and not mode and not there:
        write_secret(file, secrets.token_hex(32))
        there = True
    if there and not mode:  # for an address that is given, Ray would not look for it
        mode = os.environ[MODE] = "token"
    if mode != "token" or not there:
        if is_loopback(address):
            return
        what = "has no token" if mode == "token" else "runs programs of whoever reaches it"
        raise SpecError(f"Ray {what}", where=argument("address", address), suggestion=GUARD)
    if not os.environ.get(TOKEN) and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SpecError("others can read this token", where=file, suggestion=f"chmod 600 {file}")


def is_loopback(address: str | None) -> bool:
    """Say whether the address is one of this machine alone."""
    return address is not None and address.startswith(("127.", "localhost:"))


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of this process, in place of which Ray sets some."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
