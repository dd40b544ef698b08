"""`TINYCLIP_DATA_ROOTS`: local paths lie below a root, wherever a request names them and however they are written."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from tinyclip.addresses import READABLE_ROOTS, outside_problem
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
    (root / "within").symlink_to(root / "deep")
    (tmp_path / "way-in").symlink_to(root)
    return root


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "{root}", "{root}/00.tar", "{root}/not-yet/there.tar", "{root}/deep/../00.tar", "{root}/within/a.tar",
            "{root}/../way-in/00.tar", "file://{root}/00.tar", "{root}/{{00..03}}.tar", "{root}/*.tar", "{root}/[0-9].tar",
            "{root}/v1.0/a.{{tar,tgz}}", "{root}/{{train,val}}/a.tar", "s3://bucket/../a.tar", "https://example.org/a.tar",
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

    def test_one_of_several_roots_is_enough(self, roots: Path) -> None:
        assert outside_problem("/srv/a.tar", [str(roots), "/srv"]) is None
        assert outside_problem("/srv/a.tar", ["/"]) is None


class TestSettings:
    def test_a_relative_root_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="data is a relative path"):
            Settings.model_validate({"data_roots": ["data"]})

    def test_workers_may_also_read_the_services_own_files(self, tmp_path: Path) -> None:
        settings = Settings.model_validate({"data_roots": ["/data"], "data_dir": tmp_path})
        on_s3 = settings.model_copy(update={"artifacts": "s3://bucket/tinyclip"})

        local, remote = (json.loads(each.worker_environment[READABLE_ROOTS]) for each in (settings, on_s3))
        assert local == ["/data", f"{tmp_path}/imports", f"{tmp_path}/artifacts"]
        assert remote == ["/data", f"{tmp_path}/imports"]

    def test_without_roots_workers_may_read_all_files(self, tmp_path: Path) -> None:
        assert json.loads(Settings(data_dir=tmp_path).worker_environment[READABLE_ROOTS]) == []


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
    return await start(data_roots=[str(roots)])


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
        unrestricted = await start()
        assert (await unrestricted.http.post("/v1/jobs", json=spec())).status_code == 201

    async def test_plans_and_clones_are_checked(self, guarded: Service, roots: Path) -> None:
        job = await guarded.submit(data=REMOTE)

        plan = await guarded.http.post("/v1/jobs", params={"validate_only": True}, json=spec())
        change = {"set": {"data.train.shards": f"{roots}/link/00.tar"}}
        clone = await guarded.http.post(f"/v1/jobs/{job['id']}/clone", json=change)

        assert refused(plan, roots) == ("/data/train/shards", "/data/{00..03}.tar")
        assert refused(clone, roots) == ("/data/train/shards", f"{roots}/link/00.tar")


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
