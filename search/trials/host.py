"""Where trainings run, and what they share besides their network."""

from dataclasses import dataclass, field
from typing import Any

from archspec.training.devices import device_named, devices_for
from blocks.errors import SpecError, argument
from search.trials.moves import OnMoves

ENGINES = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster whose nodes train; without `address` (host:port) one on this machine alone.

    Each place asks for so many CPUs and so much of a GPU: 0 for none, 0.5 for half of one.
    """

    address: str | None = None
    gpus_per_job: float = 0.0
    cpus_per_job: int = 1

    @property
    def text(self) -> str:
        """Return where it is and what a place has, for people."""
        where = f"at {self.address}" if self.address else "of this machine"
        return f"the Ray cluster {where}: {self.cpus_per_job} CPUs, {self.gpus_per_job:g} GPUs"

    def devices(self, jobs: int) -> tuple[str, ...]:
        """Return the devices of so many places: each sees its own GPU as the first one."""
        return ("cuda:0" if self.gpus_per_job else "cpu",) * jobs


@dataclass(frozen=True, kw_only=True)
class TrainingHost:
    """The machine that trains, and which cases and random numbers it trains with.

    `devices` has one device per worker, `threads` are those of each worker. `plans` are the nnU-Net
    plans that a dataset is looked up with; a dataset that was found already has its own. A
    `cluster` has the devices where it is not this machine that trains. Who looks on is `on_moves`,
    told some seconds apart how far all trainings are.
    """

    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1
    fold: int = 0
    seed: int = 0
    plans: str = "nnUNetPlans"
    cluster: Cluster | None = None
    grace: float = 300.0
    """Seconds without a sign of life after which a worker is given up."""
    on_moves: OnMoves | None = field(default=None, compare=False, repr=False)


ONE_CPU = TrainingHost()
"""The default: a process with one thread, fold 0, seed 0."""


def training_host(
    device: str,
    jobs: int,
    *,
    engine: str = "local",
    address: str | None = None,
    gpus_per_job: float | None = None,
    cpus_per_job: int | None = None,
    **rest: Any,
) -> TrainingHost:
    """Return the host with so many places: workers here, or seats on a Ray cluster.

    A seat asks for a whole GPU by default where the device is one, and `auto` goes by what this
    machine has. `rest` are the other fields.

    Raises:
        SpecError: no such engine or device, or what is asked for a seat does not go.
    """
    if engine not in ENGINES:
        raise SpecError(
            "no such engine", where=argument("engine", engine), allowed=", ".join(ENGINES)
        )
    asked = {"address": address, "gpus_per_job": gpus_per_job, "cpus_per_job": cpus_per_job}
    if engine == "local":
        for name, value in asked.items():
            if value is not None:
                raise SpecError(f"`{name}` goes with `engine` ray", field="engine")
        return TrainingHost(devices=devices_for(device, jobs), **rest)
    if gpus_per_job is None:
        named = device if device.startswith(("cpu", "cuda")) else device_named(device).type
        gpus_per_job = float(named.startswith("cuda"))
    if gpus_per_job > 1 and gpus_per_job != int(gpus_per_job):
        raise SpecError(
            "a place has a part of one GPU, or whole ones",
            where=argument("gpus_per_job", gpus_per_job),
        )
    cluster = Cluster(address=address, gpus_per_job=gpus_per_job, cpus_per_job=cpus_per_job or 1)
    return TrainingHost(devices=cluster.devices(jobs), cluster=cluster, **rest)
