"""Seats on parts of a GPU, on a real Ray that is told of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray_cluster import NODES, RayCluster


@pytest.mark.long
def test_four_quarters_share_a_gpu_and_a_fifth_waits(ray_cluster: RayCluster) -> None:
    ray_cluster.add(NODES[1], cpus=5, gpus=1)
    try:
        line = [sys.executable, str(Path(__file__).with_name("quarter_seats.py"))]
        done = subprocess.run(
            [*line, ray_cluster.address],
            env=ray_cluster.environment,
            capture_output=True,
            text=True,
        )
    finally:
        ray_cluster.kill(NODES[1])
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == [["0"] * 4, 4, 5]
