"""Five seats that ask for a quarter of a GPU each, of one that a cluster says it has.

It takes the address of the head, and prints, as JSON, which devices the first four have, how many
seats there are, and how many once one of them is gone.
"""

import json
import sys

import ray
from own_cases import Squares

from search.trials.host import Cluster
from search.trials.own import own_cases
from search.trials.ray_engine import RayEngine
from search.trials.worker import WorkerSettings


def main(address: str) -> None:
    """Wait for four, look, end one, and wait for the fifth."""
    cluster = Cluster(address=address, gpus_per_job=0.25)
    devices = list(cluster.devices(5))
    settings = WorkerSettings(own_cases(Squares()), 0, 2, 1)
    with RayEngine(settings, devices, cluster) as engine:
        while engine.num_idle < 4:
            assert not list(engine.messages())
        here = [place for place in engine._places if place.hello is not None]
        asked = [place.actor.__ray_call__.remote(lambda seat: seat._gpu()) for place in here]
        found = ray.get(asked)
        # one more round of a second, in which the fifth would come if it had room
        assert not list(engine.messages())
        waited = engine.num_idle
        ray.kill(here[0].actor)
        while engine.num_idle < 5:
            assert not list(engine.messages())
        print(json.dumps([found, waited, engine.num_idle]))


if __name__ == "__main__":
    main(sys.argv[1])
