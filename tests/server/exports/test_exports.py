"""Exports: a request becomes a Ray job a format, the job's files become files of the version, and go with the export."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tinyclip.schemas import Layout
from tinyclip.schemas.exports import unavailable_formats
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.tables import ModelVersionRow
from tinyclip_server.orchestration.evaluations import reconcile as evaluate
from tinyclip_server.orchestration.exports import reconcile

from tests.server.evaluation_requests import finished
from tests.server.evaluation_requests import tell as tell_evaluation
from tests.server.service import Service, on_both_databases

MODEL = "emoji-half"
EXPORTS = f"/v1/models/{MODEL}/versions/1/exports"
GRAPH = b"a graph"


@pytest.fixture
async def service(service: Service) -> Service:
    await service.made(MODEL)
    return service


async def ask(service: Service, *formats: str, key: str | None = None, **more: Any) -> list[dict[str, Any]]:
    headers = {"Idempotency-Key": key} if key else {}
    answer = await service.http.post(EXPORTS, json={"formats": list(formats), **more}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["items"]


async def get(service: Service, name: str) -> dict[str, Any]:
    answer = await service.http.get(f"{EXPORTS}/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def round_(service: Service) -> None:
    await reconcile(service.app.state.services)


def request(service: Service, export: dict[str, Any]) -> dict[str, Any]:
    return json.loads((service.artifacts / f"exports/{id_of(export)}/request.json").read_text())


def id_of(export: dict[str, Any]) -> str:
    return str(export["ray_submission_id"]).removeprefix("tc-export-").rsplit("-a", 1)[0]


def tell(service: Service, export: dict[str, Any], *events: dict[str, Any]) -> None:
    """What the job of this attempt would write as its next segment."""
    id, attempt = id_of(export), int(export["ray_submission_id"].rsplit("-a", 1)[1])
    folder = service.artifacts / f"exports/{id}/attempts/{attempt}/events"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"time": datetime.now(UTC).isoformat(), "attempt": attempt}
    path = folder / f"{len(list(folder.iterdir())) + 1:08d}.jsonl"
    path.write_text("".join(json.dumps({**stamp, **event}) + "\n" for event in events))


def write_files(service: Service, name: str) -> dict[str, Any]:
    """The event of a job that has written one file and its document."""
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
    return {"type": "export.finished", "message": "checked on 64 pictures", "data": document}


async def done(service: Service, format: str = "onnx", **more: Any) -> dict[str, Any]:
    [export] = await ask(service, format, **more)
    await round_(service)
    tell(service, export, {"type": "export.progress", "message": "writing", "data": {"fraction": 0.1}})
    tell(service, export, write_files(service, export["name"]))
    await round_(service)
    return await get(service, export["name"])


async def files(service: Service) -> set[str]:
    return {file["path"] for file in (await service.http.get(f"/v1/models/{MODEL}/versions/latest")).json()["files"]}


class TestAsking:
    async def test_each_format_is_made_by_a_job_with_a_deterministic_id(self, service: Service) -> None:
        onnx, openvino = await ask(service, "onnx", "openvino", int8=True)
        await round_(service)

        assert (onnx["name"], onnx["model"], onnx["state"], onnx["int8"]) == ("onnx-int8", f"{MODEL}@1", "queued", True)
        assert openvino["name"] == "openvino-int8"
        assert set(service.ray.submissions[-2:]) == {onnx["ray_submission_id"], openvino["ray_submission_id"]}
        arguments = f"--artifacts {service.artifacts} --export {id_of(onnx)} --attempt 1"
        assert service.ray.entrypoints[onnx["ray_submission_id"]].endswith(f"-m tinyclip_workers.jobs export {arguments}")
        assert request(service, onnx) == {
            "name": MODEL, "version": 1, "format": "onnx", "int8": True, "tasks": [], "attempt": 1,
        }

    async def test_what_is_under_way_or_there_is_not_made_again(self, service: Service) -> None:
        [first] = await ask(service, "onnx")
        [again] = await ask(service, "onnx")
        await round_(service)
        tell(service, first, write_files(service, "onnx"))
        await round_(service)
        [there] = await ask(service, "onnx")
        await round_(service)

        assert first == again
        assert (there["state"], there["ray_submission_id"]) == ("succeeded", first["ray_submission_id"])
        assert [name for name in service.ray.submissions if "export" in name] == [first["ray_submission_id"]]

    async def test_the_same_key_gives_the_first_answer_again(self, service: Service) -> None:
        first = await ask(service, "onnx", key="k1")
        await round_(service)
        tell(service, first[0], write_files(service, "onnx"))
        await round_(service)

        assert await ask(service, "onnx", key="k1") == first

    @pytest.mark.parametrize(
        ("body", "code", "pointer", "says"),
        [
            ({"formats": []}, "invalid_input", "/formats", "at least 1 item"),
            ({"formats": ["tflite"]}, "invalid_input", "/formats/0", "'onnx', 'openvino', 'hf' or 'open_clip'"),
            ({"formats": ["onnx"], "int_8": True}, "invalid_input", "/int_8", "did you mean int8?"),
            ({"formats": ["onnx", "open_clip"], "int8": True}, "format_not_available", "/formats/1", "open_clip has no int8"),
        ],
    )
    async def test_bad_input_is_refused_by_field_and_leaves_nothing(
        self, service: Service, body: dict[str, Any], code: str, pointer: str, says: str
    ) -> None:
        answer = await service.http.post(EXPORTS, json=body)

        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["errors"][0]["pointer"]) == (422, code, pointer)
        assert says in problem["errors"][0]["message"]
        assert (await service.http.get(EXPORTS)).json()["items"] == []

    @pytest.mark.parametrize(
        ("change", "refused", "why", "has"),
        [
            ({"image": {"kind": "resnet", "heads": None, "mlp": None}}, {"hf"}, "is a ResNet", "onnx, openvino, open_clip"),
            ({"text": {"mlp": [64, 32]}}, {"hf", "open_clip"}, "its blocks differ in size", "it has onnx, openvino"),
        ],
    )
    async def test_a_format_that_the_model_cannot_have_is_refused_with_those_it_has(
        self, service: Service, change: dict[str, Any], refused: set[str], why: str, has: str
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
        answers = {format: await service.http.post(EXPORTS, json={"formats": [format]}) for format in formats}

        assert {format for format, answer in answers.items() if answer.status_code == 422} == refused
        assert {str(format) for format in unavailable_formats(Layout.model_validate(layout))} == refused
        for format in refused:
            error = answers[format].json()["errors"][0]
            assert (error["pointer"], error["value"]) == ("/formats/0", format)
            assert why in error["message"]
            assert has in error["message"]

    @pytest.mark.parametrize("path", ["/v1/models/none/versions/1/exports", f"/v1/models/{MODEL}/versions/9/exports"])
    async def test_a_model_that_is_not_there_is_not_found(self, service: Service, path: str) -> None:
        assert (await service.http.post(path, json={"formats": ["onnx"]})).status_code == 404
        assert (await service.http.get(path)).status_code == 404


class TestFiles:
    async def test_an_export_s_files_are_files_of_the_version(self, service: Service) -> None:
        before = await files(service)
        export = await done(service)

        assert (export["state"], export["progress"], export["message"]) == ("succeeded", 1.0, "checked on 64 pictures")
        assert export["check"]["image"]["largest_difference"] == 1e-7
        assert await files(service) == before | {"exports/onnx/image.onnx"}
        listed = (await service.http.get(f"/v1/models/{MODEL}/versions/1/files")).json()["items"]
        [file] = [each for each in listed if each["path"].startswith("exports/")]
        answer = await service.http.get(f"/v1/models/{MODEL}/versions/1/files/exports/onnx/image.onnx")
        assert (answer.content, answer.headers["etag"]) == (GRAPH, f'"{file["sha256"]}"')
        assert answer.headers["cache-control"] == "private, no-cache"

    async def test_half_an_export_is_none(self, service: Service) -> None:
        [export] = await ask(service, "onnx")
        await round_(service)
        write_files(service, "onnx")  # and not a word of it
        tell(service, export, {"type": "export.progress", "message": "keeping", "data": {"fraction": 0.9}})
        await round_(service)

        found = await get(service, "onnx")
        assert (found["state"], found["files"], found["progress"]) == ("running", [], 0.9)
        assert not [path for path in await files(service) if path.startswith("exports/")]
        assert (await service.http.get(f"/v1/models/{MODEL}/versions/1/files/exports/onnx/image.onnx")).status_code == 404

    async def test_deleting_takes_its_files_from_the_version_at_once_and_from_the_store_when_its_job_has_ended(
        self, service: Service
    ) -> None:
        export = await done(service)
        await done(service, int8=True)
        service.ray.jobs[export["ray_submission_id"]] = RayJobStatus.RUNNING

        answer = await service.http.delete(f"{EXPORTS}/onnx")
        shown = await files(service)
        refused = await service.http.post(EXPORTS, json={"formats": ["onnx"]})
        await round_(service)
        still = (service.artifacts / f"models/{MODEL}/1/exports/onnx").exists()
        service.ray.jobs[export["ray_submission_id"]] = RayJobStatus.STOPPED
        await round_(service)

        assert (answer.status_code, answer.json()["state"]) == (202, "deleting")
        assert {path for path in shown if path.startswith("exports/")} == {"exports/onnx-int8/image.onnx"}
        assert (refused.status_code, refused.json()["code"]) == (409, "export_deleting")
        assert still
        assert service.ray.stopped == [export["ray_submission_id"]]
        assert not (service.artifacts / f"models/{MODEL}/1/exports/onnx").exists()
        assert not (service.artifacts / "exports" / id_of(export)).exists()
        assert (service.artifacts / f"models/{MODEL}/1/exports/onnx-int8/image.onnx").exists()
        gone = (await service.http.get(f"{EXPORTS}/onnx")).json()
        assert (gone["code"], gone["detail"]) == ("no_such_export", f"{MODEL}@1 has no export onnx; it has onnx-int8")

    async def test_an_end_that_comes_after_the_deletion_shows_nothing(self, service: Service) -> None:
        [export] = await ask(service, "onnx")
        await round_(service)
        service.ray.jobs[export["ray_submission_id"]] = RayJobStatus.RUNNING
        await service.http.delete(f"{EXPORTS}/onnx")
        tell(service, export, write_files(service, "onnx"))
        await round_(service)

        assert (await get(service, "onnx"))["state"] == "deleting"
        assert "exports/onnx/image.onnx" not in await files(service)


class TestDeaths:
    async def test_a_job_that_dies_without_a_word_is_followed_by_another_up_to_three(self, service: Service) -> None:
        await ask(service, "onnx")
        await round_(service)
        for _ in range(3):
            service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
            await round_(service)
            await round_(service)

        found = await get(service, "onnx")
        assert [name.rsplit("-a", 1)[1] for name in service.ray.submissions if "export" in name] == ["1", "2", "3"]
        assert (found["state"], found["error"]["code"]) == ("failed", "attempt_lost")

    async def test_what_has_failed_is_made_again_when_asked_for_again_under_a_new_number(self, service: Service) -> None:
        [export] = await ask(service, "onnx")
        await round_(service)
        tell(service, export, {"type": "export.failed", "message": "off by 0.1", "data": {"code": "export_off"}})
        await round_(service)
        failed = await get(service, "onnx")

        [again] = await ask(service, "onnx")
        await round_(service)

        assert (failed["state"], failed["error"]) == ("failed", {"code": "export_off", "message": "off by 0.1"})
        assert (again["state"], again["error"]) == ("queued", None)
        assert service.ray.submissions[-1] == f"tc-export-{id_of(export)}-a2"
        assert request(service, again)["attempt"] == 2

    async def test_a_refused_job_says_why(self, service: Service) -> None:
        service.ray.refuses = "too large"
        await ask(service, "onnx")
        await round_(service)

        assert (await get(service, "onnx"))["message"] == "Ray refused the export: too large"


@on_both_databases
async def test_an_export_is_made_listed_and_removed(service: Service) -> None:
    export = await done(service)
    await ask(service, "hf", "openvino")

    listed = (await service.http.get(EXPORTS)).json()["items"]
    stale = await service.http.delete(f"{EXPORTS}/onnx", headers={"If-Match": '"0.queued-1"'})
    await service.http.delete(f"{EXPORTS}/onnx")
    service.ray.jobs[export["ray_submission_id"]] = RayJobStatus.SUCCEEDED
    await round_(service)

    assert [(each["name"], each["state"]) for each in listed] == [("hf", "queued"), ("onnx", "succeeded"), ("openvino", "queued")]
    assert stale.status_code == 412
    assert [each["name"] for each in (await service.http.get(EXPORTS)).json()["items"]] == ["hf", "openvino"]


async def test_an_export_is_checked_on_what_the_version_was_last_measured_on(service: Service) -> None:
    task = {"name": "cars", "kind": "zero_shot", "shards": "/data/wds_cars"}
    made = (await service.http.post("/v1/evaluations", json={"model": MODEL, "tasks": [task]})).json()
    await evaluate(service.app.state.services)
    tell_evaluation(service, made["id"], finished("cars"))
    await evaluate(service.app.state.services)

    [export] = await ask(service, "onnx")
    await round_(service)

    assert [each["name"] for each in request(service, export)["tasks"]] == ["cars"]
