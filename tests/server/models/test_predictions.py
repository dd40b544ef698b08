"""Comparisons of models image by image, and thumbnails of a task's images."""

import hashlib
from typing import Any

import httpx
import pytest
from tinyclip.artifacts.predictions import ModelPredictions, TaskPredictions

from tests.server.events import EVALUATION_STARTED, evaluation_finished
from tests.server.service import Service

CLASSES = ["cat", "dog", "owl"]
LABELS = [0, 0, 1, 1, 1]
FIRST, SECOND, TEACHER = [0, 1, 1, 1, 2], [0, 0, 1, 2, 0], [0, 0, 1, 1, 1]
TASK = {"name": "pets", "kind": "zero_shot", "shards": "/data/pets.tar"}


def predictions(rows: list[int], teacher: list[int] | None = None, **changes: Any) -> TaskPredictions:
    models = {"student": rows, **({"teacher": teacher} if teacher else {})}
    columns = {"shard": [0] * 5, "start": [1024 * n for n in range(5)], "length": [1024] * 5, "labels": LABELS}
    found = {
        "task": "pets", "classes": CLASSES, "image_key": ["jpg"], "images": 9, "shards": ["/data/pets.tar"],
        "keys": ["a", "b", "c", "d", "gone"], **columns, **changes,
    }  # fmt: skip
    answers = {name: ModelPredictions(rows=each, scores=[0.5] * 5) for name, each in models.items()}
    return TaskPredictions.model_validate({**found, "models": answers})


def entry(found: TaskPredictions, evaluation: str | None = None) -> dict[str, Any]:
    return {
        "images": found.images, "kept": len(found.keys), "teacher": "teacher" in found.models, "evaluation": evaluation,
        "sha256": hashlib.sha256(found.pack()).hexdigest(), "images_sha256": found.images_digest(),
    }  # fmt: skip


async def register(service: Service, name: str, found: TaskPredictions, task: str = "pets", **changes: Any) -> None:
    """Register a version with predictions."""
    number = await service.register_model(name, predictions={task: entry(found)}, **changes)
    write(service, f"models/{name}/{number}/predictions/{task}.json.gz", found)


def write(service: Service, path: str, found: TaskPredictions) -> None:
    file = service.artifacts / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(found.pack())


@pytest.fixture
async def service(service: Service) -> Service:
    await register(service, "one", predictions(FIRST, TEACHER))
    await register(service, "two", predictions(SECOND))
    return service


async def compare(service: Service, models: str = "one@1,two@1", status: int = 200, **query: Any) -> dict[str, Any]:
    response = await service.http.get("/v1/compare/predictions", params={"models": models, **query})
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


class TestCompare:
    async def test_images_have_what_each_model_takes_them_for(self, service: Service) -> None:
        found = await compare(service)

        assert (found["models"], found["task"], found["tasks"]) == (["one@1", "two@1"], "pets", ["pets"])
        assert (found["images"], found["kept"], found["next_page_token"], found["classes"]) == (9, 5, None, [])
        assert found["items"][1] == {
            "number": 1, "key": "b", "label": "cat",
            "predictions": [
                {"label": "dog", "score": 0.5, "correct": False}, {"label": "cat", "score": 0.5, "correct": True},
            ],
        }  # fmt: skip
        assert found["counts"] == {
            "images": 5, "both_right": 2, "only_first": 1, "only_second": 1, "both_wrong": 1, "differ": 3,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("show", "numbers"),
        [("all", [0, 1, 2, 3, 4]), ("differ", [1, 3, 4]), ("only_first", [3]), ("only_second", [1]), ("both_wrong", [4])],
    )
    async def test_a_category_can_be_shown(self, service: Service, show: str, numbers: list[int]) -> None:
        found = await compare(service, show=show)

        assert [image["number"] for image in found["items"]] == numbers
        assert found["counts"]["images"] == 5

    async def test_pages_continue_where_the_one_before_ended(self, service: Service) -> None:
        numbers, token = [], {}
        for _ in range(2):
            page = await compare(service, show="differ", page_size=2, **token)
            numbers.append([image["number"] for image in page["items"]])
            token = {"page_token": page["next_page_token"]}

        assert numbers == [[1, 3], [4]]
        assert token == {"page_token": None}

    async def test_one_class_and_the_counts_of_each(self, service: Service) -> None:
        found = await compare(service, label="dog", classes=True)

        assert [image["number"] for image in found["items"]] == [2, 3, 4]
        assert (found["counts"]["images"], found["counts"]["only_first"]) == (3, 1)
        assert found["classes"] == [
            {"label": "cat", "images": 2, "correct": [1, 2]}, {"label": "dog", "images": 3, "correct": [2, 1]},
        ]  # fmt: skip
        problem = await compare(service, label="horse", status=422)
        assert (problem["code"], problem["errors"][0]["pointer"]) == ("no_such_label", "/label")

    async def test_a_version_beside_its_teacher(self, service: Service) -> None:
        found = await compare(service, "one@latest,teacher,two")

        assert found["models"] == ["one@1", "ViT-B-32", "two@1"]
        assert [each["correct"] for each in found["items"][4]["predictions"]] == [False, True, False]
        assert found["counts"]["only_second"] == 2

    async def test_a_single_model(self, service: Service) -> None:
        found = await compare(service, "one@1", show="both_wrong")

        assert [image["number"] for image in found["items"]] == [1, 4]
        assert (found["counts"]["both_right"], found["counts"]["differ"]) == (3, 0)

    @pytest.mark.parametrize("changes", [{"keys": [*"abcde"]}, {"labels": [0] * 5}, {"classes": ["cat", "dog", "x"]}])
    async def test_other_images_are_refused(self, service: Service, changes: dict[str, Any]) -> None:
        await register(service, "other", predictions(FIRST, **changes))

        assert (await compare(service, "one,other", status=422))["code"] == "no_predictions"
        problem = await compare(service, "one,other", status=409, task="pets")

        assert problem["code"] == "other_images"
        assert "one@1 and other@1 were evaluated on other images or classes" in problem["detail"]

    @pytest.mark.parametrize(
        ("models", "query", "status", "message"),
        [
            ("", {}, 422, "name 1 to 8 models"),
            (",".join(["one"] * 9), {}, 422, "name 1 to 8 models"),
            ("ghost@1", {}, 404, "there is no model ghost"),
            ("teacher,one", {}, 422, "name a version with a teacher before its teacher"),
            ("two,teacher", {"task": "pets"}, 422, "evaluate two@1 against it"),
            ("one", {"task": "cars"}, 422, "has no predictions of cars"),
            ("one", {"show": "best"}, 422, "show"),
            ("one", {"page_token": "W10"}, 422, "not a token of this list"),
        ],
    )
    async def test_what_cannot_be_compared_has_a_reason(
        self, service: Service, models: str, query: dict[str, str], status: int, message: str
    ) -> None:
        assert message in str(await compare(service, models, status=status, **query))

    async def test_a_missing_or_damaged_file_is_named(self, service: Service) -> None:
        (service.artifacts / "models/one/1/predictions/pets.json.gz").unlink()
        (service.artifacts / "models/two/1/predictions/pets.json.gz").write_bytes(b"no gzip")

        assert (await compare(service, "one", status=404))["code"] == "file_missing"
        assert (await compare(service, "two", status=500))["code"] == "damaged_predictions"


class TestThumbnail:
    async def get(self, service: Service, number: object, version: str = "1", task: str = "pets", **more: Any) -> httpx.Response:
        path = f"/v1/models/one/versions/{version}/tasks/{task}/images/{number}/thumbnail"
        return await service.http.get(path, **more)

    async def test_it_is_asked_for_by_the_image_s_place(self, service: Service) -> None:
        response = await self.get(service, 2, params={"size": 64})

        assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
        assert response.json() == {
            "url": "/data/pets.tar", "key": "c", "start": 2048, "length": 1024, "image_key": ["jpg"], "size": 64,
        }  # fmt: skip
        etag = response.headers["etag"]
        assert (await self.get(service, 2, params={"size": 64}, headers={"If-None-Match": etag})).status_code == 304
        assert (await self.get(service, 2, headers={"If-None-Match": etag})).status_code == 200

    async def test_what_is_not_there_has_a_reason(self, service: Service) -> None:
        for number, changes, code in (
            (5, {}, "no_such_image"), (4, {}, "no_such_sample"), (0, {"task": "cars"}, "no_predictions"),
            (0, {"version": "9"}, "no_such_version"),
        ):  # fmt: skip
            response = await self.get(service, number, **changes)
            assert (response.status_code, response.json()["code"]) == (404, code)
        for number in ("-1", "one", 2**53):
            assert (await self.get(service, number)).status_code == 422
        assert (await self.get(service, 0, params={"size": 5000})).status_code == 422


class TestOfEvaluations:
    """Predictions of an evaluation come with its metrics and go with it."""

    async def evaluate(self, service: Service, model: str, found: TaskPredictions, **scores: Any) -> str:
        response = await service.call("POST", "/v1/evaluations", {"model": model, "tasks": [TASK]}, status=201)
        id = str(response["id"])
        await service.reconcile("evaluations")
        write(service, f"evaluations/{id}/predictions/pets.json.gz", found)
        service.emit(EVALUATION_STARTED, evaluation_finished("pets", predictions={"pets": entry(found, id)}, **scores))
        await service.reconcile("evaluations")
        return id

    async def test_the_newest_evaluation_s_are_shown_until_it_is_deleted(self, service: Service) -> None:
        await service.register_model("new")
        await self.evaluate(service, "new", predictions([2] * 5))
        id = await self.evaluate(service, "new", predictions(FIRST, TEACHER), teacher="other")

        version = await service.get("/v1/models/new/versions/1")
        assert (version["predictions"]["pets"]["evaluation"], version["predictions"]["pets"]["teacher"]) == (id, False)
        assert (await compare(service, "new,one"))["counts"]["differ"] == 0

        await service.http.delete(f"/v1/evaluations/{id}")

        version = await service.get("/v1/models/new/versions/1")
        assert (version["predictions"], version["evaluated_by"]) == ({}, {"pets": id})

    async def test_those_of_the_training_are_kept(self, service: Service) -> None:
        known = {"pets": {"student": {"top1": 0.6, "samples": 9}, "teacher": None}}
        await register(service, "trained", predictions(FIRST), evaluation=known)

        await self.evaluate(service, "trained", predictions(SECOND))

        assert (await service.get("/v1/models/trained/versions/1"))["predictions"]["pets"]["evaluation"] is None

    @pytest.mark.parametrize(("samples", "completed"), [(9, True), (8, False)])
    async def test_they_complete_a_training_without(self, service: Service, samples: int, completed: bool) -> None:
        known = {"pets": {"student": {"top1": 0.6, "samples": 9}, "teacher": None}}
        await service.register_model("old", evaluation=known)

        await self.evaluate(service, "old", predictions(FIRST), samples=samples)

        version = await service.get("/v1/models/old/versions/1")
        assert version["evaluation"] == known
        assert ("pets" in version["predictions"]) is completed
