import pytest

from loadtests.cluster import LoopbackCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with LoopbackCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
