"""Waiting for a deployment, and opening one."""

import httpx
import pytest
import tinyclip

from tests.client.clients import Connect
from tests.client.documents import DEPLOYMENT


def test_waiting_ends_when_it_is_ready_or_unhealthy(connect: Connect) -> None:
    states = iter(["deploying", "updating", "unhealthy"])
    client = connect(lambda request: httpx.Response(200, json=DEPLOYMENT | {"state": next(states), "message": "no memory"}))

    assert client.deployments.wait("shapes").message == "no memory"


def test_a_deployment_that_is_not_ready_cannot_be_opened(connect: Connect) -> None:
    deploying = DEPLOYMENT | {"state": "deploying", "message": "loading weights"}

    with pytest.raises(tinyclip.Unavailable, match=r"shapes is deploying, not ready \(loading weights\); wait until"):
        connect(lambda request: httpx.Response(200, json=deploying)).deployments.open("shapes")


def test_traffic_and_the_cluster(connect: Connect) -> None:
    documents = {
        "/v1/deployments/shapes/traffic": {
            "deployment": "shapes", "measured_at": "2026-01-01T00:00:00Z", "queries": 3, "latency": {"count": 3},
        },
        "/v1/cluster": {"ray_version": "2.60.0", "nodes": [], "workloads": []},
    }  # fmt: skip
    client = connect(lambda request: httpx.Response(200, json=documents[request.url.path]))

    assert client.deployments.traffic("shapes").queries == 3
    assert client.cluster().ray_version == "2.60.0"
