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
