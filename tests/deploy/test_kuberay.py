"""The manifests for Kubernetes: valid, least privilege, and closed to what does not need them."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.settings import expect_settings

ROOT = Path(__file__).parents[2]
VERSION = "1.34"
Manifests = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    """All documents, by kind and name."""
    files = sorted((ROOT / "deploy" / "kuberay").glob("*.yaml"))
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


@pytest.fixture(scope="module")
def pods(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """The templates of all pods."""
    templates = {f"{kind} {name}": document["spec"]["template"] for (kind, name), document in manifests.items()
                 if kind in ("Deployment", "StatefulSet", "Job")}  # fmt: skip
    cluster = manifests["RayCluster", "tinyclip"]["spec"]
    templates["head"] = cluster["headGroupSpec"]["template"]
    return templates | {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}


class TestManifests:
    def test_kubernetes_schemas_accept_them(self, manifests: Manifests) -> None:
        checked = [document for (kind, _), document in manifests.items() if kind != "RayCluster"]

        assert len(checked) == len(manifests) - 1
        for document in checked:
            assert kubernetes_validate.validate(document, VERSION, strict=True)

    def test_kubernetes_schemas_accept_the_pods_of_ray(self, pods: dict[str, dict[str, Any]]) -> None:
        for template in pods.values():
            document = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ray"}, "template": template}
            assert kubernetes_validate.validate(document, VERSION, strict=True)

    def test_there_is_a_cluster_two_servers_and_a_service(self, manifests: Manifests) -> None:
        assert ("RayCluster", "tinyclip") in manifests
        assert manifests["Deployment", "tinyclip"]["spec"]["replicas"] == 2
        labels = manifests["Deployment", "tinyclip"]["spec"]["template"]["metadata"]["labels"]
        assert manifests["Service", "tinyclip"]["spec"]["selector"].items() <= labels.items()

    def test_the_versions_of_ray_are_one(self, manifests: Manifests) -> None:
        assert f"ray=={manifests['RayCluster', 'tinyclip']['spec']['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()

    def test_the_settings_are_settings_and_the_probes_routes(self, manifests: Manifests) -> None:
        (server,) = manifests["Deployment", "tinyclip"]["spec"]["template"]["spec"]["containers"]
        expect_settings({variable["name"] for variable in server["env"]})

        assert server["startupProbe"]["httpGet"]["path"] == server["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert {"name": "TINYCLIP_RAY_ADDRESS", "value": "http://tinyclip-head-svc:8265"} in server["env"]

    def test_every_node_asks_for_the_token(self, pods: dict[str, dict[str, Any]]) -> None:
        for name in ("head", "cpu", "gpu"):
            (node,) = pods[name]["spec"]["containers"]
            assert {"name": "RAY_AUTH_MODE", "value": "token"} in node["env"]
            binary = {"name": "RAY_SERVE_HAPROXY_BINARY_PATH", "value": "/opt/tinyclip/bin/tinyclip-haproxy"}
            assert binary in node["env"]

    def test_a_job_of_its_own_migrates_and_no_server_does(self, pods: dict[str, dict[str, Any]]) -> None:
        (migrate,) = pods["Job tinyclip-migrate"]["spec"]["containers"]

        assert migrate["command"] == ["tinyclip-server", "migrate"]
        assert [name for name, pod in pods.items() if "initContainers" in pod["spec"]] == []

    def test_the_state_of_ray_outlives_its_head(self, manifests: Manifests) -> None:
        options = manifests["RayCluster", "tinyclip"]["spec"]["gcsFaultToleranceOptions"]
        host, _, port = options["redisAddress"].partition(":")
        (redis,) = manifests["StatefulSet", "tinyclip-redis"]["spec"]["template"]["spec"]["containers"]

        assert manifests["Service", host]["spec"]["ports"][0]["port"] == int(port) == redis["ports"][0]["containerPort"]
        assert redis["env"] == [{"name": "REDIS_PASSWORD", **options["redisPassword"]}]
        assert "--appendonly yes" in redis["command"][-1]


class TestLeastPrivilege:
    def test_no_pod_runs_as_root_or_has_a_token_of_kubernetes(self, pods: dict[str, dict[str, Any]]) -> None:
        for name, pod in pods.items():
            context = pod["spec"]["securityContext"]
            assert context["runAsNonRoot"], name
            assert context["runAsUser"] > 0, name
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert pod["spec"]["automountServiceAccountToken"] is False, name
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"]), name
            assert not [volume for volume in pod["spec"].get("volumes", []) if "hostPath" in volume], name

    def test_no_container_can_gain_privileges_or_write_to_its_root(self, pods: dict[str, dict[str, Any]]) -> None:
        confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        for name, pod in pods.items():
            for container in pod["spec"]["containers"]:
                assert container["securityContext"] == confined, name

    def test_every_container_declares_what_it_needs(self, pods: dict[str, dict[str, Any]]) -> None:
        for name, pod in pods.items():
            for container in pod["spec"]["containers"]:
                assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
                assert "memory" in container["resources"]["limits"], name

    def test_the_user_of_the_image_is_the_user_of_the_pods(self, pods: dict[str, dict[str, Any]]) -> None:
        dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
        users = {pod["spec"]["securityContext"]["runAsUser"] for name, pod in pods.items() if "redis" not in name}

        assert users == {10001}
        assert "--uid 10001" in dockerfile
        assert "--gid 10001" in dockerfile


class TestNetworkPolicies:
    def test_everything_is_denied_by_default_but_names(self, manifests: Manifests) -> None:
        default = manifests["NetworkPolicy", "default"]["spec"]

        assert (default["podSelector"], default["policyTypes"]) == ({}, ["Ingress", "Egress"])
        assert "ingress" not in default
        assert [[port["port"] for port in rule["ports"]] for rule in default["egress"]] == [[53, 53]]

    def test_every_pod_has_a_policy(self, manifests: Manifests, pods: dict[str, dict[str, Any]]) -> None:
        selected = [labels for labels, _ in _policies(manifests)]
        own = [pod["metadata"]["labels"] for name, pod in pods.items() if name not in ("head", "cpu", "gpu")]

        assert all(any(labels.items() <= pod.items() for labels in selected) for pod in own)
        assert {"ray.io/cluster": "tinyclip"} in selected

    def test_no_port_is_open_to_everybody(self, manifests: Manifests) -> None:
        rules = [rule for _, policy in _policies(manifests) for rule in policy.get("ingress", [])]

        assert rules
        for rule in rules:
            assert rule["from"]
            for peer in rule["from"]:
                selector = peer.get("podSelector") or peer["namespaceSelector"]
                assert selector["matchLabels"]

    def test_rays_dashboard_runs_code_and_is_open_to_the_control_plane_alone(self, manifests: Manifests) -> None:
        assert _allowed(manifests, 8265, "ray-head") == [{"podSelector": {"matchLabels": {"app": "tinyclip"}}}]

    def test_redis_is_open_to_ray_alone(self, manifests: Manifests) -> None:
        assert _allowed(manifests, 6379, "redis") == [{"podSelector": {"matchLabels": {"ray.io/cluster": "tinyclip"}}}]

    def test_the_metadata_service_of_clouds_is_reached_by_no_pod(self, manifests: Manifests) -> None:
        blocks = [
            peer["ipBlock"] for _, policy in _policies(manifests) for rule in policy.get("egress", [])
            for peer in rule["to"] if "ipBlock" in peer
        ]  # fmt: skip

        assert blocks
        assert {"169.254.0.0/16"} == {net for block in blocks if block["cidr"] == "0.0.0.0/0" for net in block["except"]}
        assert all(block["except"] for block in blocks)


def _policies(manifests: Manifests) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Return labels of the selected pods, and the policy."""
    found = [document["spec"] for (kind, name), document in manifests.items() if kind == "NetworkPolicy" and name != "default"]
    return [(spec["podSelector"]["matchLabels"], spec) for spec in found]


def _allowed(manifests: Manifests, port: int, policy: str) -> list[dict[str, Any]]:
    """Return the peers that a policy lets connect to a port."""
    rules = manifests["NetworkPolicy", policy]["spec"]["ingress"]
    return [peer for rule in rules if port in [one["port"] for one in rule["ports"]] for peer in rule["from"]]
