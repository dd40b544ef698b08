"""Exports: a Ray job makes each, its files are listed with the version's, and are deleted with the export."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tinyclip.schemas import Layout
from tinyclip.schemas.exports import unavailable_formats
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.tables import ModelVersionRow

from tests.server.events import evaluation_finished, export_progress
from tests.server.service import Service, on_both_databases

MODEL = "emoji-half"
VERSION = f"/v1/models/{MODEL}/versions/1"
EXPORTS = f"{VERSION}/exports"
GRAPH = b"a graph"


@pytest.fixture
async def service(service: Service) -> Service:
    await service.register_model(MODEL)
    return service


async def post(service: Service, *formats: str, key: str | None = None, **options: Any) -> list[dict[str, Any]]:
    page = await service.call("POST", EXPORTS, {"formats": list(formats), **options}, status=202, key=key)
    return page["items"]


async def get(service: Service, name: str) -> dict[str, Any]:
    return await service.get(f"{EXPORTS}/{name}")


def id_of(export: dict[str, Any]) -> str:
    return str(export["ray_submission_id"]).removeprefix("tc-export-").rsplit("-a", 1)[0]


def write_files(service: Service, name: str) -> dict[str, Any]:
    """Write an export's file and document, and return the event of the job that has written them."""
    folder = service.artifacts / f"models/{MODEL}/1/exports/{name}"
    folder.mkdir(parents=True)
    (folder / "image.onnx").write_bytes(GRAPH)
    near = {"largest_difference": 1e-7, "mean_cosine": 1.0, "least_cosine": 1.0}
    check = {
        "data": "evaluation task cars", "pictures": 64, "texts": 10, "image": near, "text": near, "own_preprocessing": near,
        "tolerance": {"largest_difference": 1e-5, "mean_cosine": None, "own_preprocessing_mean_cosine": 0.999},
    }
    file = {"path": "image.onnx", "bytes": len(GRAPH), "sha256": hashlib.sha256(GRAPH).hexdigest()}
    document = {
        "model": f"{MODEL}@1", "format": name.partition("-")[0], "int8": name.endswith("int8"), "files": [file], "check": check,
        "created_at": datetime.now(UTC).isoformat(),
    }
    (folder / "export.json").write_text(json.dumps(document))
    return {"type": "export.finished", "message": "checked on 64 images", "data": document}


async def finish(service: Service, export: dict[str, Any]) -> dict[str, Any]:
    """Let the job of a submitted export succeed."""
    service.emit(write_files(service, export["name"]), submission=export["ray_submission_id"])
    await service.reconcile("exports")
    return await get(service, export["name"])


async def exported(service: Service, format: str = "onnx", **options: Any) -> dict[str, Any]:
    """Make an export."""
    [export] = await post(service, format, **options)
    await service.reconcile("exports")
    service.emit(export_progress("writing", 0.1), submission=export["ray_submission_id"])
    return await finish(service, export)


async def files(service: Service) -> set[str]:
    return {file["path"] for file in (await service.get(VERSION))["files"]}


class TestPost:
    async def test_each_format_is_made_by_a_job_with_a_deterministic_id(self, service: Service) -> None:
        onnx, openvino = await post(service, "onnx", "openvino", int8=True)
        await service.reconcile("exports")

        assert (onnx["name"], onnx["model"], onnx["state"], onnx["int8"]) == ("onnx-int8", f"{MODEL}@1", "queued", True)
        assert openvino["name"] == "openvino-int8"
        assert set(service.ray.submissions) == {onnx["ray_submission_id"], openvino["ray_submission_id"]}
        arguments = f"--artifacts {service.artifacts} --export {id_of(onnx)} --attempt 1"
        assert service.ray.entrypoints[onnx["ray_submission_id"]].endswith(f"-m tinyclip_workers.jobs export {arguments}")
        assert service.ray_request(onnx["ray_submission_id"]) == {
            "name": MODEL, "version": 1, "format": "onnx", "int8": True, "vocabulary": "whole", "embedding": "fp32", "tasks": [],
            "attempt": 1,
        }

    async def test_vocabulary_and_embedding_make_exports_of_their_own(self, service: Service) -> None:
        async with service.app.state.services.db.write() as session:
            row = await session.get_one(ModelVersionRow, (MODEL, 1))
            layout = row.document["layout"]
            row.document = {**row.document, "layout": {**layout, "text": {**layout["text"], "vocab_size": 49408}}}
        [plain] = await post(service, "onnx")
        onnx, own = await post(service, "onnx", "tinyclip", vocabulary="reduced", embedding="int8")
        await service.reconcile("exports")

        assert [each["name"] for each in (plain, onnx, own)] == [
            "onnx", "onnx-reduced-embedding-int8", "tinyclip-reduced-embedding-int8",
        ]  # fmt: skip
        assert (onnx["vocabulary"], onnx["embedding"], onnx["reduction"]) == ("reduced", "int8", None)
        request = service.ray_request(onnx["ray_submission_id"])
        assert (request["vocabulary"], request["embedding"]) == ("reduced", "int8")

    async def test_an_export_that_exists_or_is_in_progress_is_not_repeated(self, service: Service) -> None:
        [first] = await post(service, "onnx")
        [repeated] = await post(service, "onnx")
        await service.reconcile("exports")
        await finish(service, first)
        [existing] = await post(service, "onnx")
        await service.reconcile("exports")

        assert first == repeated
        assert (existing["state"], existing["ray_submission_id"]) == ("succeeded", first["ray_submission_id"])
        assert service.ray.submissions == [first["ray_submission_id"]]

    async def test_the_same_key_returns_the_first_response(self, service: Service) -> None:
        first = await post(service, "onnx", key="k1")
        await service.reconcile("exports")
        await finish(service, first[0])

        assert await post(service, "onnx", key="k1") == first

    @pytest.mark.parametrize(
        ("body", "code", "pointer", "message"),
        [
            ({"formats": []}, "invalid_input", "/formats", "at least 1 item"),
            ({"formats": ["tflite"]}, "invalid_input", "/formats/0", "'onnx', 'openvino', 'hf', 'open_clip' or 'tinyclip'"),
            ({"formats": ["onnx"], "int_8": True}, "invalid_input", "/int_8", "did you mean int8?"),
            ({"formats": ["onnx", "open_clip"], "int8": True}, "format_not_available", "/formats/1", "open_clip has no int8"),
            ({"formats": ["hf"], "embedding": "int8"}, "format_not_available", "/formats/0", "hf has no token embedding in int8"),
            ({"formats": ["hf"], "vocabulary": "reduced"}, "format_not_available", "/vocabulary", "the model has 100"),
        ],
    )
    async def test_invalid_input_is_refused_by_field_without_an_effect(
        self, service: Service, body: dict[str, Any], code: str, pointer: str, message: str
    ) -> None:
        problem = await service.call("POST", EXPORTS, body, status=422)

        assert (problem["code"], problem["errors"][0]["pointer"]) == (code, pointer)
        assert message in problem["errors"][0]["message"]
        assert await service.items(EXPORTS) == []

    @pytest.mark.parametrize(
        ("change", "refused", "reason", "available"),
        [
            ({"image": {"kind": "resnet", "heads": None, "mlp": None}}, {"hf"}, "is a ResNet", "onnx, openvino, open_clip"),
            ({"text": {"mlp": [64, 32]}}, {"hf", "open_clip"}, "its blocks differ in size", "it has onnx, openvino"),
        ],
    )
    async def test_an_unavailable_format_is_refused_with_the_available_ones(
        self, service: Service, change: dict[str, Any], refused: set[str], reason: str, available: str
    ) -> None:
        async with service.app.state.services.db.write() as session:
            row = await session.get_one(ModelVersionRow, (MODEL, 1))
            layout = {**row.document["layout"]}
            for tower, fields in change.items():
                layout[tower] = {**layout[tower], **fields}
            if "mlp" in change.get("text", {}):
                layout["text"].update(layers=2, heads=[layout["text"]["heads"][0]] * 2)
            row.document = {**row.document, "layout": layout}

        formats = ("onnx", "openvino", "hf", "open_clip")
        responses = {format: await service.http.post(EXPORTS, json={"formats": [format]}) for format in formats}

        assert {format for format, response in responses.items() if response.status_code == 422} == refused
        assert {str(format) for format in unavailable_formats(Layout.model_validate(layout))} == refused
        for format in refused:
            error = responses[format].json()["errors"][0]
            assert (error["pointer"], error["value"]) == ("/formats/0", format)
            assert reason in error["message"]
            assert available in error["message"]

    @pytest.mark.parametrize("path", ["/v1/models/none/versions/1/exports", f"/v1/models/{MODEL}/versions/9/exports"])
    async def test_a_missing_version_is_not_found(self, service: Service, path: str) -> None:
        assert (await service.http.post(path, json={"formats": ["onnx"]})).status_code == 404
        assert (await service.http.get(path)).status_code == 404


class TestFiles:
    async def test_an_exports_files_are_files_of_the_version(self, service: Service) -> None:
        before = await files(service)
        export = await exported(service)

        assert (export["state"], export["progress"], export["message"]) == ("succeeded", 1.0, "checked on 64 images")
        assert export["check"]["image"]["largest_difference"] == 1e-7
        assert await files(service) == before | {"exports/onnx/image.onnx"}
        [file] = [each for each in await service.items(f"{VERSION}/files") if each["path"].startswith("exports/")]
        response = await service.http.get(f"{VERSION}/files/exports/onnx/image.onnx")
        assert (response.content, response.headers["etag"]) == (GRAPH, f'"{file["sha256"]}"')
        assert response.headers["cache-control"] == "private, no-cache"

    async def test_files_of_an_export_that_has_not_succeeded_are_not_listed(self, service: Service) -> None:
        await post(service, "onnx")
        await service.reconcile("exports")
        write_files(service, "onnx")
        service.emit(export_progress("keeping", 0.9))
        await service.reconcile("exports")

        export = await get(service, "onnx")
        assert (export["state"], export["files"], export["progress"]) == ("running", [], 0.9)
        assert not [path for path in await files(service) if path.startswith("exports/")]
        assert (await service.http.get(f"{VERSION}/files/exports/onnx/image.onnx")).status_code == 404

    async def test_deletion_unlists_the_files_at_once_and_removes_them_when_the_job_has_ended(self, service: Service) -> None:
        export = await exported(service)
        await exported(service, int8=True)
        service.ray.jobs[export["ray_submission_id"]] = RayJobStatus.RUNNING
        folder = service.artifacts / f"models/{MODEL}/1/exports/onnx"

        deleting = await service.call("DELETE", f"{EXPORTS}/onnx", status=202)
        listed = await files(service)
        refused = await service.call("POST", EXPORTS, {"formats": ["onnx"]}, status=409)
        await service.reconcile("exports")
        exists_meanwhile = folder.exists()
        service.ray.jobs[export["ray_submission_id"]] = RayJobStatus.STOPPED
        await service.reconcile("exports")

        assert deleting["state"] == "deleting"
        assert {path for path in listed if path.startswith("exports/")} == {"exports/onnx-int8/image.onnx"}
        assert refused["code"] == "export_deleting"
        assert exists_meanwhile
        assert service.ray.stopped == [export["ray_submission_id"]]
        assert not folder.exists()
        assert not (service.artifacts / "exports" / id_of(export)).exists()
        assert (service.artifacts / f"models/{MODEL}/1/exports/onnx-int8/image.onnx").exists()
        problem = await service.call("GET", f"{EXPORTS}/onnx", status=404)
        assert (problem["code"], problem["detail"]) == ("no_such_export", f"{MODEL}@1 has no export onnx; it has onnx-int8")

    async def test_a_success_after_the_deletion_lists_nothing(self, service: Service) -> None:
        await post(service, "onnx")
        await service.reconcile("exports")
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.RUNNING
        await service.http.delete(f"{EXPORTS}/onnx")
        service.emit(write_files(service, "onnx"))
        await service.reconcile("exports")

        assert (await get(service, "onnx"))["state"] == "deleting"
        assert "exports/onnx/image.onnx" not in await files(service)


class TestFailures:
    async def test_a_lost_job_is_retried_up_to_two_times(self, service: Service) -> None:
        await post(service, "onnx")
        await service.reconcile("exports")
        for _ in range(3):
            service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
            await service.reconcile("exports", 2)

        export = await get(service, "onnx")
        assert [name.rsplit("-a", 1)[1] for name in service.ray.submissions] == ["1", "2", "3"]
        assert (export["state"], export["error"]["code"]) == ("failed", "attempt_lost")

    async def test_a_failed_export_is_repeated_on_request_as_the_next_attempt(self, service: Service) -> None:
        [export] = await post(service, "onnx")
        await service.reconcile("exports")
        service.emit({"type": "export.failed", "message": "off by 0.1", "data": {"code": "export_off"}})
        await service.reconcile("exports")
        failed = await get(service, "onnx")

        [repeated] = await post(service, "onnx")
        await service.reconcile("exports")

        assert (failed["state"], failed["error"]) == ("failed", {"code": "export_off", "message": "off by 0.1"})
        assert (repeated["state"], repeated["error"]) == ("queued", None)
        assert service.ray.submissions[-1] == f"tc-export-{id_of(export)}-a2"
        assert service.ray_request()["attempt"] == 2

    async def test_a_refused_job_has_the_reason(self, service: Service) -> None:
        service.ray.refusal_reason = "too large"
        await post(service, "onnx")
        await service.reconcile("exports")

        assert (await get(service, "onnx"))["message"] == "Ray refused the export: too large"


@on_both_databases
async def test_an_export_is_made_listed_and_removed(service: Service) -> None:
    export = await exported(service)
    await post(service, "hf", "openvino")

    listed = await service.items(EXPORTS)
    stale = await service.http.delete(f"{EXPORTS}/onnx", headers={"If-Match": '"0.queued-1"'})
    await service.http.delete(f"{EXPORTS}/onnx")
    service.ray.jobs[export["ray_submission_id"]] = RayJobStatus.SUCCEEDED
    await service.reconcile("exports")

    assert [(each["name"], each["state"]) for each in listed] == [("hf", "queued"), ("onnx", "succeeded"), ("openvino", "queued")]
    assert stale.status_code == 412
    assert [each["name"] for each in await service.items(EXPORTS)] == ["hf", "openvino"]


async def test_an_export_is_checked_on_the_tasks_of_the_newest_evaluation(service: Service) -> None:
    task = {"name": "cars", "kind": "zero_shot", "shards": "/data/wds_cars"}
    await service.call("POST", "/v1/evaluations", {"model": MODEL, "tasks": [task]}, status=201)
    await service.reconcile("evaluations")
    service.emit(evaluation_finished("cars"))
    await service.reconcile("evaluations")

    await post(service, "onnx")
    await service.reconcile("exports")

    assert [each["name"] for each in service.ray_request()["tasks"]] == ["cars"]
