"""A cluster of two nodes on this machine, for all tests that need one; each node has a cache of its own."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeps.execution.cluster import SETTINGS
from tests.bucket_server import Server

NOTICE = 1.0  # seconds between the announcement that a node is taken back and its end
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


class Nodes:
    """A head and a second node, a core each; the second can be killed and is replaced by `complete`."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        Path("/tmp/ray").mkdir(exist_ok=True)  # where Ray notes the newest cluster; it does not make the folder itself
        self.folder, self.caches = folder, [folder / "first"]
        head = {**NODE, "temp_dir": str(folder), "include_dashboard": False}
        self.ray = Cluster(initialize_head=True, head_node_args=head | self._environment())
        self.second: Any = None
        self.complete()

    def _environment(self) -> dict[str, Any]:
        return {"env_vars": {"MPDIT_CACHE": str(self.caches[-1])}}

    @property
    def address(self) -> str:
        return str(self.ray.address)

    def complete(self) -> None:
        """Start a second node, with an empty cache, where there is none."""
        if self.second is None:
            self.caches[1:] = [self.folder / f"second-{len(list(self.folder.glob('second-*')))}"]
            self.caches[1].mkdir()
            self.second = self.ray.add_node(**NODE, **self._environment())

    def kill_second(self) -> None:
        """Kill all processes of the second node at once."""
        self.ray.remove_node(self.second, allow_graceful=False)
        self.second = None

    def take_second_back(self) -> None:
        """Take the second node back as a cloud takes a spot node: announced, and killed when its time is over."""
        from ray._raylet import GcsClient
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = time.time() + NOTICE
        is_accepted, problem = GcsClient(address=self.address).drain_node(
            self.second.node_id, reason, "a spot node", round(1000 * deadline)
        )
        assert is_accepted, problem
        while time.time() <= deadline:
            time.sleep(0.1)
        self.kill_second()

    def members(self) -> list[psutil.Process]:
        """The workers of the trials of two workers that run here."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.ray.list_all_nodes()]
        children = [process for raylet in raylets for process in psutil.Process(raylet).children(recursive=True)]
        return [process for process in children if "RayTrainWorker" in " ".join(process.cmdline())]


@pytest.fixture(scope="session")
def nodes(s3_server: Server) -> Iterator[Nodes]:
    """Started where our code is not on the path, with what it takes to get into a bucket."""
    folder = Path(tempfile.mkdtemp(prefix="mpdit-two-", dir="/tmp"))  # sockets' paths are short
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", *SETTINGS):  # a sweep in this process has left its own
            patch.delenv(name, raising=False)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        s3_server.enter(patch)
        patch.chdir("/")
        made = Nodes(folder)
    yield made
    made.ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(nodes: Nodes) -> Nodes:
    """The cluster, both of its nodes alive."""
    nodes.complete()
    return nodes
