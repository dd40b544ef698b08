"""Addresses of users lie below `TINYCLIP_DATA_ROOTS` and never reach the service's own files, however they are written."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from tinyclip import addresses
from tinyclip.addresses import ARTIFACTS_ROOT, AddressRules, address_problem, outside_problem, service_problem
from tinyclip_server.backends import data_roots
from tinyclip_server.backends.data_roots import ADMITTED, AddressChecks
from tinyclip_server.problems import TooManyRequests
from tinyclip_server.settings import Settings

from tests.server.documents import spec
from tests.server.service import Service, Start

ZERO_SHOT = {"name": "digits", "kind": "zero_shot", "shards": "s3://b/a.tar"}
PROBE = {"name": "probe", "kind": "linear_probe", "shards": "s3://b/a.tar"}
REMOTE = {"train": {"shards": "s3://bucket/{00..03}.tar"}}
TEACHER = {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """A root with a shard; a link in it leads to a secret beside it."""
    root = tmp_path / "data"
    (root / "deep").mkdir(parents=True)
    (root / "00.tar").write_bytes(b"shard")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "00.tar").write_bytes(b"secret")
    (tmp_path / "data-too").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "[out]").symlink_to(tmp_path / "secret")
    (root / "within").symlink_to(root / "deep")
    (tmp_path / "way-in").symlink_to(root)
    return root


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "{root}", "{root}/00.tar", "{root}/not-yet/there.tar", "{root}/deep/../00.tar", "{root}/within/a.tar",
            "{root}/../way-in/00.tar", "file://{root}/00.tar", "{root}/{{00..03}}.tar", "{root}/*.tar", "{root}/[0-9].tar",
            "{root}/v1.0/a.{{tar,tgz}}", "{root}/{{train,val}}/a.tar",
        ],
    )
    def test_paths_below_a_root_are_accepted(self, roots: Path, path: str) -> None:
        assert outside_problem(path.format(root=roots), [str(roots)]) is None

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("/etc/passwd", "lies outside"),
            ("{root}/../secret/00.tar", "it leads to"),
            ("{root}/link/00.tar", "it leads to"),
            ("{root}/link/{{00..03}}.tar", "it leads to"),
            ("{root}/within/../../secret/00.tar", "it leads to"),
            ("{root}-too/00.tar", "lies outside"),
            ("{root}/{{..,deep}}/secret/00.tar", "dots"),
            ("{root}/{{.,x}}{{.,y}}/secret/00.tar", "dots"),
            ("{root}/.{{.,x}}/secret/00.tar", "dots"),
            ("{root}/*/../../secret/00.tar", "dots"),
            ("{root}/[out]/00.tar", "lies outside"),
            ("{{/etc,{root}}}/passwd", "relative"),
            ("{{/etc/passwd,s3://b/a}}", "relative"),
            ("/etc/pa{{://,}}sswd", "lies outside"),
            ("file:///etc/passwd", "lies outside"),
            ("FILE:///etc/passwd", "lies outside"),
            ("file:/etc/passwd", "relative"),
            ("data/00.tar", "relative"),
            ("~/00.tar", "relative"),
            ("", "relative"),
        ],
    )
    def test_other_paths_are_refused(self, roots: Path, path: str, reason: str) -> None:
        problem = outside_problem(path.format(root=roots), [str(roots)])

        assert reason in str(problem)

    def test_an_address_has_a_limited_number_of_segments(self, roots: Path) -> None:
        rules = AddressRules((str(roots), "s3://pairs"))

        for address in (f"{roots}{'/a' * 501}", f"{roots}/{{{'a/b,' * 501}}}", f"s3://pairs{'/a' * 501}", f"{roots}{'/.' * 501}"):
            assert "slashes, more than 500" in str(rules.problem(address))
        assert rules.problem(f"{roots}{'/a' * 400}") is None

    def test_the_places_are_resolved_once_for_all_addresses(self, roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        resolved: list[str] = []
        monkeypatch.setattr(addresses, "_resolve", lambda path, real=addresses._resolve: resolved.append(path) or real(path))
        rules, resolve = AddressRules((str(roots), "/srv"), (str(roots.parent / "secret"),)), addresses.resolver()

        problems = [rules.problem(f"{roots}/{number}.tar", resolve) for number in range(20)]

        assert problems == [None] * 20
        assert len(resolved) == len(set(resolved)) <= 20 + 5

    def test_a_link_that_changes_is_followed_again_for_the_next_request(self, roots: Path) -> None:
        rules, link = AddressRules((str(roots),)), roots / "within"
        assert rules.problem(f"{link}/00.tar") is None

        link.unlink()
        link.symlink_to(roots.parent / "secret")

        assert "it leads to" in str(rules.problem(f"{link}/00.tar"))

    def test_one_of_several_roots_is_enough(self, roots: Path) -> None:
        assert outside_problem("/srv/a.tar", [str(roots), "/srv"]) is None
        assert outside_problem("/srv/a.tar", ["/"]) is None


class TestUris:
    ROOTS = ("/data", "s3://pairs/open", "https://example.org/sets/")

    @pytest.mark.parametrize(
        "address",
        [
            "s3://pairs/open/{00..03}.tar", "S3://pairs/open/a.tar", "s3a://PAIRS/open/*.tar", "s3://pairs/open", "s3://pairs/open/",
            "https://example.org/sets/a.tar?version=2", "https://EXAMPLE.org:443/sets/{0..9}.tar", "/data/a.tar",
        ],
    )
    def test_addresses_below_a_prefix_are_accepted(self, address: str) -> None:
        assert outside_problem(address, self.ROOTS) is None

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("s3://pairs/opened/a.tar", "lies outside"),
            ("s3://pairs/a.tar", "lies outside"),
            ("s3://other/open/a.tar", "lies outside"),
            ("gs://pairs/open/a.tar", "lies outside"),
            ("s3://pairs/op*/a.tar", "lies outside"),
            ("s3://{pairs,other}/open/a.tar", "name the bucket"),
            ("s3://pairs/open/{..,x}/closed/a.tar", "dots"),
            ("s3://pairs/open//a.tar", "//"),
            ("http://example.org/sets/a.tar", "lies outside"),
            ("https://example.org/other/a.tar", "lies outside"),
            ("https://example.org:8443/sets/a.tar", "lies outside"),
            ("https://example.org.evil.net/sets/a.tar", "lies outside"),
            ("https://evil.net#.example.org/sets/a.tar", "lies outside"),
            ("https://example.org/sets/../a.tar", "dots"),
            ("https://example.org/sets/%2e%2E/a.tar", "dots"),
            ("https://example.org/sets/..%2fa.tar", "escaped"),
            ("https://example.org/sets/..\\a.tar", "escaped"),
            ("https://example.org//sets/a.tar", "//"),
        ],
    )
    def test_others_are_refused(self, address: str, reason: str) -> None:
        assert reason in str(outside_problem(address, self.ROOTS))

    def test_without_a_prefix_no_uri_is_accepted(self) -> None:
        assert "lies outside" in str(outside_problem("https://example.org/a.tar", ["/data"]))


class TestServiceFiles:
    @pytest.mark.parametrize(
        "address",
        [
            "s3://bucket/artifacts/models/victim/1", "s3://bucket/artifacts", "s3://bucket/artifacts/", "S3://bucket/artifacts/x",
            "s3a://bucket/artifacts/x", "s3://BUCKET/artifacts/x", "s3:///bucket/artifacts/x", "s3://bucket//artifacts//x",
            "s3://bucket/%61rtifacts/x", "s3://bucket/%2561rtifacts/x", "s3://bucket/artifacts/{a,b}/x", "s3://bucket/artifacts/*.json",
        ],
    )
    def test_spellings_of_a_bucket_are_refused(self, address: str) -> None:
        assert "belongs to the service" in str(service_problem(address, ["s3://bucket/artifacts"]))

    @pytest.mark.parametrize(
        ("address", "place"),
        [
            ("abfss://files@account.dfs.core.windows.net/art/x", "az://files/art"), ("gcs://bucket/art/x", "gs://bucket/art"),
            ("memory:///art/x", "memory://art"), ("memory://art/x", "memory:///art"),
        ],
    )
    def test_aliases_of_schemes_are_refused(self, address: str, place: str) -> None:
        assert "belongs to the service" in str(service_problem(address, [place]))

    @pytest.mark.parametrize("address", ["s3://bucket/artifacts2/x", "s3://bucket/x/artifacts", "s3://other/artifacts/x", "/d/x"])
    def test_neighbours_are_accepted(self, address: str) -> None:
        assert service_problem(address, ["s3://bucket/artifacts"]) is None

    @pytest.mark.parametrize(
        "path",
        [
            "{own}", "{own}/tinyclip.db", "{own}/../secret/x", "{root}/link/00.tar", "/{own}/x", "file://{own}/x", "file:///{own}/x",
            "{own}/*/x", "{root}/link/*.tar", "{root}/deep/../../secret/x", "/proc/self/environ", "/proc/1/../self/environ",
        ],
    )
    def test_paths_that_lead_to_them_are_refused(self, roots: Path, path: str) -> None:
        own = roots.parent / "secret"

        assert "belongs to the service" in str(service_problem(path.format(own=own, root=roots), [str(own)]))

    def test_relative_paths_and_the_home_folder_are_resolved(self, roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(roots.parent))
        monkeypatch.chdir(roots)
        own = [str(roots.parent / "secret")]

        for path in ("~/secret/00.tar", "../secret/00.tar", "link/00.tar"):
            assert "belongs to the service" in str(service_problem(path, own))
        assert service_problem("00.tar", own) is None

    @pytest.mark.parametrize("address", ["file:/etc/passwd", "local:/etc/passwd", "/data/a\tb.tar", "s3://arn:aws:s3:eu-west-1:1:ap/x"])
    def test_spellings_that_drivers_read_in_their_own_way_are_refused(self, address: str) -> None:
        assert address_problem(address, allow_private=False) is not None


class TestSettings:
    @pytest.mark.parametrize(
        ("root", "reason"),
        [
            ("data", "relative path"), ("ftp://host/a", "has the scheme ftp"), ("s3://", "names no bucket"),
            ("/data/*", "pattern"), ("file:///data", "write its path"), ("s3://bucket/../a", "has .."),
        ],
    )
    def test_an_unusable_root_is_refused(self, root: str, reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            Settings.model_validate({"data_roots": [root]})

    def test_workers_get_the_rules_and_the_place_of_registered_models(self, tmp_path: Path) -> None:
        settings = Settings.model_validate({
            "data_roots": ["/data", "s3://b/pairs"], "data_dir": tmp_path, "artifacts": "s3://b/art", "database_url": "sqlite:////db/t.db",
            "ray_token_path": "/run/token",
        })

        environment = settings.worker_environment

        rules = AddressRules.from_environment(environment)
        assert rules.roots == ("/data", "s3://b/pairs")
        assert {"s3://b/art", str(tmp_path), "/run/token", "/db/t.db", "/db/t.db-wal"} <= set(rules.service)
        assert environment[ARTIFACTS_ROOT] == "s3://b/art"

    def test_a_node_adds_its_own_token_of_ray(self) -> None:
        rules = AddressRules.from_environment({"RAY_AUTH_TOKEN_PATH": "/run/secrets/ray"})

        assert "belongs to the service" in str(rules.problem("/run/secrets/ray"))
        assert rules.problem("/run/secrets/other") is None


def refused(response: httpx.Response, root: Path) -> tuple[str, object]:
    """Return pointer and value of the refused field, whose message names the roots."""
    assert response.status_code == 422, response.text
    problem = response.json()
    assert problem["code"] == "outside_data_roots"
    [error] = problem["errors"]
    assert str(root) in error["message"]
    return error["pointer"], error["value"]


@pytest.fixture
async def guarded(start: Start, roots: Path) -> Service:
    return await start(data_dir=roots.parent / "service", data_roots=[str(roots), "s3://b", "s3://bucket"])


class TestJobs:
    @pytest.mark.parametrize(
        ("pointer", "value", "changes"),
        [
            ("/data/train/shards", "/etc/a.tar", {"data": {"train": {"shards": "/etc/a.tar"}}}),
            ("/data/train/shards/1", "/etc/b.tar", {"data": {"train": {"shards": ["s3://b/a.tar", "/etc/b.tar"]}}}),
            ("/teacher/model", "/etc/model", {"teacher": {"model": "local-dir:/etc/model"}}),
            ("/teacher/pretrained", "/etc/w.safetensors", {"teacher": {"model": "ViT-B-32", "pretrained": "/etc/w.safetensors"}}),
            ("/teachers/1/model", "/etc/model", {"teacher": None, "teachers": [TEACHER, {"model": "local-dir:/etc/model"}]}),
            ("/evaluation/tasks/0/shards", "/etc", {"evaluation": {"tasks": [{**ZERO_SHOT, "shards": "/etc"}]}}),
            ("/evaluation/tasks/0/classes", "/etc/passwd", {"evaluation": {"tasks": [{**ZERO_SHOT, "classes": "/etc/passwd"}]}}),
            ("/evaluation/tasks/0/templates", "/etc/t", {"evaluation": {"tasks": [{**ZERO_SHOT, "templates": "/etc/t"}]}}),
            ("/evaluation/tasks/0/train_shards", "/etc", {"evaluation": {"tasks": [{**PROBE, "train_shards": "/etc"}]}}),
            ("/objective/clusters", "/etc/c", {"objective": {"cluster_instance": 1, "clusters": "/etc/c"}}),
        ],
    )
    async def test_every_field_with_a_path_is_checked(
        self, guarded: Service, roots: Path, pointer: str, value: str, changes: dict[str, Any]
    ) -> None:
        response = await guarded.http.post("/v1/jobs", json=spec(**{"data": REMOTE, **changes}))

        assert refused(response, roots) == (pointer, value)

    async def test_the_clusters_of_a_stage_are_checked(self, guarded: Service, roots: Path) -> None:
        body = spec(data=REMOTE)
        body["stages"][1]["objective"] = {"cluster_instance": 1, "clusters": "/etc/c"}

        response = await guarded.http.post("/v1/jobs", json=body)

        assert refused(response, roots) == ("/stages/1/objective/clusters", "/etc/c")

    async def test_paths_below_a_root_are_accepted_and_all_without_roots(
        self, guarded: Service, start: Start, roots: Path
    ) -> None:
        inside = spec(data={"train": {"shards": f"{roots}/{{00..03}}.tar"}})

        assert (await guarded.http.post("/v1/jobs", json=inside)).status_code == 201
        assert (await guarded.http.post("/v1/jobs", json=spec())).status_code == 422
        unrestricted = await start(data_dir=roots.parent / "service")
        assert (await unrestricted.http.post("/v1/jobs", json=spec())).status_code == 201

    async def test_plans_and_clones_are_checked(self, guarded: Service, roots: Path) -> None:
        job = await guarded.submit(data=REMOTE)

        plan = await guarded.http.post("/v1/jobs", params={"validate_only": True}, json=spec())
        change = {"set": {"data.train.shards": f"{roots}/link/00.tar"}}
        clone = await guarded.http.post(f"/v1/jobs/{job['id']}/clone", json=change)

        assert refused(plan, roots) == ("/data/train/shards", "/data/{00..03}.tar")
        assert refused(clone, roots) == ("/data/train/shards", f"{roots}/link/00.tar")


    async def test_the_addresses_of_a_request_have_a_limit_together(
        self, guarded: Service, roots: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(data_roots, "MAX_SEGMENTS", 100)
        body = spec(data={"train": {"shards": [f"{roots}/{number}.tar" for number in range(100)]}})

        problem = (await guarded.http.post("/v1/jobs", json=body)).json()

        assert (problem["status"], problem["code"]) == (422, "too_complex")
        assert "slashes" in problem["detail"]

    async def test_one_project_is_checked_in_one_thread_at_a_time(self) -> None:
        checks, running, most = AddressChecks(), 0, 0

        def check() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            time.sleep(0.01)
            running -= 1

        done = await asyncio.gather(*(checks.run("a", check) for _ in range(ADMITTED + 3)), return_exceptions=True)

        assert most == 1
        assert [type(one) for one in done if one is not None] == [TooManyRequests] * 3


class TestOthers:
    @pytest.mark.parametrize(
        ("pointer", "value", "changes"),
        [
            ("/model", "/etc/m", {"model": "local-dir:/etc/m"}),
            ("/against", "/etc/m", {"against": "local-dir:/etc/m"}),
            ("/tasks/0/classes", "/etc/passwd", {"tasks": [{**ZERO_SHOT, "classes": "/etc/passwd"}]}),
        ],
    )
    async def test_evaluations(self, guarded: Service, roots: Path, pointer: str, value: str, changes: dict[str, Any]) -> None:
        body = {"model": "ViT-B-32/openai", "tasks": [ZERO_SHOT], **changes}

        assert refused(await guarded.http.post("/v1/evaluations", json=body), roots) == (pointer, value)

    async def test_indexes(self, guarded: Service, roots: Path) -> None:
        body = {"model": "photos@1", "source": {"shards": [f"{roots}/00.tar", f"{roots}/link/00.tar"]}}

        response = await guarded.http.put("/v1/indexes/photos", json=body)

        assert refused(response, roots) == ("/source/shards/1", f"{roots}/link/00.tar")

    async def test_imports(self, guarded: Service, roots: Path) -> None:
        body = {"source": f"{roots}/../secret/00.tar", "name": "photos"}

        assert refused(await guarded.http.post("/v1/models/import", json=body), roots) == ("/source", body["source"])


class TestServiceFilesInRequests:
    """Another project's artifacts, tokens and the database, named by a user of a service that restricts nothing else."""

    @pytest.fixture
    async def open_service(self, start: Start, tmp_path: Path) -> Service:
        return await start(data_dir=tmp_path / "service", artifacts="memory://bucket/artifacts")

    @pytest.mark.parametrize(
        "source",
        [
            "memory://bucket/artifacts/models/victim/1", "memory:///bucket/artifacts/models/victim/1", "{data}/tinyclip.db",
            "{data}/../service/logs/server.log", "/proc/self/environ", "{link}/ray-token",
        ],
    )
    async def test_none_is_imported(self, open_service: Service, tmp_path: Path, source: str) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "service")
        source = source.format(data=tmp_path / "service", link=tmp_path / "link")

        response = await open_service.http.post("/v1/models/import", json={"source": source, "name": "stolen"})

        problem = response.json()
        assert (response.status_code, problem["code"]) == (422, "address_refused")
        assert problem["errors"][0]["pointer"] == "/source"
        assert await open_service.items("/v1/models") == []

    @pytest.mark.parametrize("address", ["memory://bucket/artifacts/jobs/x.tar", "{data}/ray-token", "/proc/self/environ"])
    async def test_no_field_reaches_one(self, open_service: Service, tmp_path: Path, address: str) -> None:
        address = address.format(data=tmp_path / "service")
        task = {**ZERO_SHOT, "classes": address, "templates": address}
        probe = {**PROBE, "shards": address, "train_shards": [address]}
        body = spec(
            teacher=None, teachers=[{"model": f"local-dir:{address}"}, {"model": "ViT-B-32", "pretrained": f"{address}/w.bin"}],
            data={"train": {"shards": [address]}}, evaluation={"tasks": [task, probe]},
            objective={"cluster_instance": 1, "clusters": address},
        )

        job = await open_service.http.post("/v1/jobs", json=body)
        body = {"model": f"local-dir:{address}", "tasks": [task, probe]}
        evaluation = await open_service.http.post("/v1/evaluations", json=body)
        index = await open_service.http.put("/v1/indexes/i", json={"model": "m@1", "source": {"shards": address}})

        tasks = {"tasks/0/classes", "tasks/0/templates", "tasks/1/shards", "tasks/1/train_shards/0"}
        assert pointers(job) == {
            "/teachers/0/model", "/teachers/1/pretrained", "/data/train/shards/0", "/objective/clusters",
            *(f"/evaluation/{at}" for at in tasks),
        }
        assert pointers(evaluation) == {"/model", *(f"/{at}" for at in tasks)}
        assert pointers(index) == {"/source/shards"}

    async def test_a_file_in_the_place_of_a_tag_is_refused(self, open_service: Service) -> None:
        body = {"model": "ViT-B-32/tinyclip.db", "tasks": [ZERO_SHOT]}

        response = await open_service.http.post("/v1/evaluations", json=body)

        assert (response.status_code, response.json()["code"]) == (422, "unknown_model")


def pointers(response: httpx.Response) -> set[str]:
    assert (response.status_code, response.json()["code"]) == (422, "address_refused"), response.text
    return {error["pointer"] for error in response.json()["errors"]}
