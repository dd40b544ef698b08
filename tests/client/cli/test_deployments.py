"""`deployments …` and `label-sets …`."""

import pytest

from tests.client.conftest import Cli, Serve
from tests.client.servers import DeploymentServer


@pytest.fixture
def server(serve: Serve) -> DeploymentServer:
    server = DeploymentServer()
    server.url = serve(server.app()).url
    return server


class TestCreate:
    def test_it_waits_until_the_deployment_is_ready(self, cli: Cli, server: DeploymentServer) -> None:
        result = cli("deployments", "create", "shapes", "--model", "shapes@best", "--max-replicas", "2")

        assert (result.code, result.out) == (0, f"shapes shapes@1 ready at {server.url}/shapes\n")
        [body] = server.bodies
        assert (body["model"], body["canary"], body["models"]) == ("shapes@best", None, [])
        assert (body["replicas"], body["engine"]) == ({"min": 1, "max": 2}, "auto")

    def test_a_canary_and_further_models(self, cli: Cli, server: DeploymentServer) -> None:
        canary = ("--canary", "shapes@2", "--canary-weight", "0.2")
        more = ("--also", "a@1", "--also", "b@1", "--resident", "1")
        cli("deployments", "create", "shapes", "--model", "shapes@1", *canary, *more)

        [body] = server.bodies
        assert body["canary"] == {"model": "shapes@2", "weight": 0.2}
        assert (body["models"], body["resident"]) == (["a@1", "b@1"], 1)

    def test_no_wait(self, cli: Cli, server: DeploymentServer) -> None:
        assert cli("deployments", "create", "shapes", "--model", "shapes", "--no-wait").out == "shapes shapes@1 deploying\n"

    def test_an_unhealthy_deployment_exits_with_1_and_its_reason(self, cli: Cli, server: DeploymentServer) -> None:
        server.states, server.message = ["deploying", "unhealthy"], "no memory"

        result = cli("deployments", "create", "shapes", "--model", "shapes")

        assert (result.code, result.out) == (1, "shapes shapes@1 unhealthy: no memory\n")


def test_list_and_delete(cli: Cli, server: DeploymentServer) -> None:
    assert "| shapes | shapes@1 | ready | 1-1      |" in cli("deployments", "list").out
    assert cli("deployments", "delete", "shapes").out == "shapes shapes@1 deleting\n"


def test_label_sets(cli: Cli, server: DeploymentServer) -> None:
    server.states = ["ready"]

    put = cli("label-sets", "put", "colours", "--labels", "red,blue", "--template", "a {} thing", "-d", "shapes")

    assert (put.code, put.out) == (0, "colours: 2 labels, 1 templates\n")
    assert cli("label-sets", "get", "colours", "-d", "shapes").out == "red\nblue\n"
    assert "| colours |      2 |         1 |" in cli("label-sets", "list", "-d", "shapes").out
    assert cli("label-sets", "delete", "colours", "-d", "shapes").out == "colours deleted\n"
    assert server.bodies == [{"labels": ["red", "blue"], "templates": ["a {} thing"]}, {"deleted": "colours"}]


def test_traffic(cli: Cli, server: DeploymentServer) -> None:
    out = cli("deployments", "traffic", "shapes").out

    assert "shapes: 10 queries, 2 items waiting, 75.0% of 4 texts cached\n" in out
    assert "| /zero-shot |        |       10 |    12.3 |  10 |  20 |  24 |" in out
    assert "|            | encode |        9 |    12.3 |  10 |  20 |  24 |" in out
    assert "| shapes@1 |       9 |    90.0 |" in out
    assert "| images     |       4 |        2.5 |" in out
    assert "| r1      | RUNNING | 10.0.0.1 |       – |       – |" in out
    assert out.endswith("without the replicas on 10.0.0.1:8080, which do not answer\n")


def test_cluster(cli: Cli, server: DeploymentServer) -> None:
    out = cli("cluster").out

    assert out.startswith("Ray 2.60.0, dashboard at http://127.0.0.1:8265\n")
    assert "| one  | head  | 1.5/4 |     55 | 0    | 3 GiB/16 GiB | 0 B/256 MiB  |" in out
    assert "| job     | shapes | RUNNING | one   | tc-job_1-a1 |" in out
    assert "| replica | shapes | RUNNING | –     | r1          |" in out
    assert out.endswith("2 of other projects or programs\n")
    assert '"ray_version"' in cli("cluster", "--json").out
