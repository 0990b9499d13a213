"""Can a search use this cluster and this server? Looked at before hours are spent on them."""

import pickle
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from blocks.errors import SpecError, reason
from search.study.lock import ServerLock
from search.study.server import Server
from search.trials.handshake import Hello, differences, hello, local
from search.trials.host import Cluster
from search.trials.own import Data
from search.trials.ray_connection import GUARD, connected, is_loopback

_PATIENCE = 60.0


@dataclass(frozen=True)
class ClusterCheck:
    """What was found of a server and of each machine, and what does not go."""

    found: Sequence[str]
    trouble: Sequence[str]

    def text(self) -> str:
        """Return a line for each."""
        return "\n".join([*self.found, *(f"trouble: {one}" for one in self.trouble)])

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def check_cluster(
    address: str | None = None, storage: str | None = None, data: Data | None = None
) -> ClusterCheck:
    """Look at the server and the cluster, where they are named, and on each machine at the data.

    Raises:
        SpecError: an address is none, or one of the two does not answer.
    """
    found: list[str] = []
    trouble: list[str] = []
    if storage is not None:
        _look_at_server(Server.new(storage), found, trouble)
    if address is not None:
        _look_at_machines(Cluster(address=address), data, found, trouble)
    return ClusterCheck(tuple(found), tuple(trouble))


def _look_at_server(server: Server, found: list[str], trouble: list[str]) -> None:
    server.has_study()
    engine = server.engine()
    try:
        with engine.connect() as connection, ServerLock(server):
            version = connection.execute(text("SHOW server_version")).scalar()
            made = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
            allowed = connection.execute(text(made)).scalar()
    except SQLAlchemyError as error:
        raise server.refusal(error) from None
    finally:
        engine.dispose()
    found.append(f"{server}: PostgreSQL {version}, answers and locks")
    if not allowed:
        trouble.append(f"{server}: this user may make no tables there")


def _look_at_machines(
    cluster: Cluster, data: Data | None, found: list[str], trouble: list[str]
) -> None:
    here = hello(data)
    with connected(cluster, 1) as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        given = pickle.dumps(data), list(sys.path)
        machines = [one for one in ray.nodes() if one["Alive"] and one["Resources"].get("CPU")]
        if not machines:
            trouble.append("no machine of the cluster has CPUs to lend")
        for machine in machines:
            only = NodeAffinitySchedulingStrategy(machine["NodeID"], soft=False)
            asked = ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=only)
            name, resources = machine["NodeManagerHostname"], machine["Resources"]
            try:
                told = ray.get(asked.remote(*given), timeout=_PATIENCE)
            except ray.exceptions.RayError as error:
                trouble.append(f"{name}: {reason(error)}")
                continue
            lends = f"{resources['CPU']:g} CPUs and {resources.get('GPU', 0):g} GPUs"
            found.append(f"{name}: lends {lends}")
            trouble += [f"{name}: {one}" for one in _wrong(here, told, cluster)]


def _wrong(here: Hello, told: Hello | SpecError, cluster: Cluster) -> list[str]:
    if isinstance(told, SpecError):
        return [told.line]
    wrong = [differences(here.shared, told.shared)]
    if not told.guarded and not is_loopback(cluster.address):
        wrong.append(f"its Ray daemon runs programs of whoever reaches it; {GUARD}")
    return [one for one in wrong if one]


def look(data: bytes, path: Sequence[str]) -> Hello | SpecError:
    """Return what the machine has that this is called on."""
    sys.path += [one for one in path if one not in sys.path]
    found: Data | None = pickle.loads(data)
    try:
        return hello(None if found is None else local(found))
    except SpecError as error:
        return error
