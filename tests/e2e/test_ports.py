"""The embedded service is reachable from its own machine only."""

import grpc
import httpx
import psutil
import pytest

from tests.e2e.world import World

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]


def listeners(pids: set[int]) -> dict[tuple[str, int], str]:
    """Return the addresses on which processes listen for TCP, with the processes' names."""
    found = {}
    for pid in pids:
        process = psutil.Process(pid)
        for socket in process.net_connections(kind="tcp"):
            if socket.status == psutil.CONN_LISTEN:
                found[socket.laddr.ip, socket.laddr.port] = process.name()
    return found


def is_loopback(ip: str) -> bool:
    return ip.removeprefix("::ffff:").startswith("127.") or ip == "::1"


def test_the_service_listens_on_loopback_but_for_one_port_of_a_replica_that_requires_the_token(
    world: World, deployment: str
) -> None:
    found = listeners(world.service.processes() | {world.service.pid})

    assert deployment in httpx.get(f"{world.service.url}/v1/deployments").text
    assert httpx.get(f"{world.service.cluster()['address']}/api/jobs/", timeout=30).status_code == 401
    assert {"haproxy", "gcs_server", "raylet"} <= set(found.values())
    public = {address: name for address, name in found.items() if not is_loopback(address[0])}
    assert {name.partition(":Student")[0] for name in public.values()} <= {f"ray::ServeReplica:{deployment}"}
    for _, port in public:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
