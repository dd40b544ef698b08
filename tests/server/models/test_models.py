"""The registry: versions, aliases, files and comparisons."""

import hashlib
from typing import Any

import pytest

from tests.server.service import Service, on_both_databases

WEIGHTS = bytes(range(256)) * 20


@pytest.fixture
async def emoji(service: Service) -> Service:
    """A registry with emoji@1 and emoji@2, the second with a file."""
    folder = service.artifacts / "models" / "emoji" / "2"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights.safetensors").write_bytes(WEIGHTS)
    (folder / "secret.txt").write_text("not listed")
    files = [{"path": "deep/weights.safetensors", "bytes": len(WEIGHTS), "sha256": hashlib.sha256(WEIGHTS).hexdigest()}]
    await service.register_model("emoji")
    await service.register_model("emoji", files=files)
    return service


async def get(service: Service, path: str, status: int = 200, **kwargs: Any) -> Any:
    response = await service.http.get(f"/v1/{path}", **kwargs)
    assert response.status_code == status, response.text
    return response.json()


@on_both_databases
class TestVersions:
    async def test_models_and_versions_are_listed(self, emoji: Service) -> None:
        (model,) = (await get(emoji, "models"))["items"]
        versions = (await get(emoji, "models/emoji/versions"))["items"]

        assert (model["name"], model["latest"], model["versions"], model["aliases"]) == ("emoji", 2, [1, 2], {})
        assert [version["version"] for version in versions] == [2, 1]

    async def test_a_page_continues_after_the_previous_one(self, emoji: Service) -> None:
        await emoji.register_model("aaa")
        first = await get(emoji, "models", params={"page_size": 1})
        second = await get(emoji, "models", params={"page_size": 1, "page_token": first["next_page_token"]})
        versions = await get(emoji, "models/emoji/versions", params={"page_size": 1})
        older = await get(emoji, "models/emoji/versions", params={"page_size": 1, "page_token": versions["next_page_token"]})

        assert [page["items"][0]["name"] for page in (first, second)] == ["aaa", "emoji"]
        assert [page["items"][0]["version"] for page in (versions, older)] == [2, 1]
        assert second["next_page_token"] is older["next_page_token"] is None

    async def test_a_name_that_is_only_reserved_is_not_shown(self, service: Service) -> None:
        await service.started(name="coming")

        assert (await get(service, "models"))["items"] == []
        assert (await get(service, "models/coming", status=404))["code"] == "no_such_model"

    async def test_the_number_of_a_failed_job_is_not_used_again(self, service: Service) -> None:
        worker = await service.running(name="emoji")
        worker.emit({"type": "attempt.failed", "message": "no", "data": {"code": "x", "retryable": False}})
        await service.tick()

        job = await service.succeeded("emoji")

        assert job["model"]["version"] == 2
        assert (await get(service, "models/emoji"))["versions"] == [2]


class TestAliases:
    async def test_an_alias_refers_to_the_version_last_put(self, emoji: Service) -> None:
        await emoji.http.put("/v1/models/emoji/aliases/best", json={"version": 2})
        response = await emoji.http.put("/v1/models/emoji/aliases/best", json={"version": 1})

        assert response.json()["aliases"] == {"best": 1}
        version = await get(emoji, "models/emoji/versions/best")
        assert (version["version"], version["aliases"]) == (1, ["best"])

    async def test_an_alias_can_be_removed(self, emoji: Service) -> None:
        await emoji.http.put("/v1/models/emoji/aliases/best", json={"version": 1})

        assert (await emoji.http.delete("/v1/models/emoji/aliases/best")).status_code == 204

        assert (await emoji.http.delete("/v1/models/emoji/aliases/best")).json()["code"] == "no_such_alias"

    @pytest.mark.parametrize("alias", ["3", "latest", "Bad Name", "a" * 80])
    async def test_a_name_with_another_meaning_is_refused(self, emoji: Service, alias: str) -> None:
        assert (await emoji.http.put(f"/v1/models/emoji/aliases/{alias}", json={"version": 1})).status_code == 422

    @pytest.mark.parametrize(("version", "status"), [(9, 404), (0, 422), ("x", 422), (10**30, 404)])
    async def test_an_invalid_version_is_refused(self, emoji: Service, version: object, status: int) -> None:
        response = await emoji.http.put("/v1/models/emoji/aliases/best", json={"version": version})

        assert response.status_code == status

    @pytest.mark.parametrize("which", ["9", "best", "0", "99999999999999999999"])
    async def test_the_error_of_an_unknown_version_lists_versions_and_aliases(self, emoji: Service, which: str) -> None:
        problem = await get(emoji, f"models/emoji/versions/{which}", status=404)

        assert problem["detail"].endswith("it has versions 1, 2 and aliases latest")


class TestFiles:
    PATH = "/v1/models/emoji/versions/2/files/deep/weights.safetensors"

    async def test_they_are_listed(self, emoji: Service) -> None:
        (file,) = (await get(emoji, "models/emoji/versions/latest/files"))["items"]

        assert (file["path"], file["bytes"]) == ("deep/weights.safetensors", len(WEIGHTS))

    async def test_they_are_downloaded_with_their_digest_as_etag(self, emoji: Service) -> None:
        response = await emoji.http.get(self.PATH)

        assert (response.status_code, response.content) == (200, WEIGHTS)
        assert response.headers["etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
        assert (await emoji.http.get(self.PATH, headers={"If-None-Match": response.headers["etag"]})).status_code == 304

    @pytest.mark.parametrize(
        ("range", "first", "after"),
        [("bytes=0-9", 0, 10), ("bytes=5000-", 5000, 5120), ("bytes=-7", 5113, 5120), ("bytes=5110-99999", 5110, 5120)],
    )
    async def test_ranges_are_downloaded(self, emoji: Service, range: str, first: int, after: int) -> None:
        response = await emoji.http.get(self.PATH, headers={"Range": range})

        assert (response.status_code, response.content) == (206, WEIGHTS[first:after])
        assert response.headers["content-range"] == f"bytes {first}-{after - 1}/{len(WEIGHTS)}"

    async def test_a_range_of_another_state_of_the_file_returns_the_whole_file(self, emoji: Service) -> None:
        response = await emoji.http.get(self.PATH, headers={"Range": "bytes=0-9", "If-Range": '"older"'})

        assert (response.status_code, len(response.content)) == (200, len(WEIGHTS))

    @pytest.mark.parametrize("range", ["bytes=x-", "items=0-1", "bytes=0-1,4-5", "bytes=" + "9" * 6000 + "-", "bytes=--1"])
    async def test_an_unsupported_range_returns_the_whole_file(self, emoji: Service, range: str) -> None:
        assert (await emoji.http.get(self.PATH, headers={"Range": range})).status_code == 200

    @pytest.mark.parametrize("range", ["bytes=5120-", "bytes=9-3", "bytes=-0"])
    async def test_a_range_outside_of_the_file_is_416(self, emoji: Service, range: str) -> None:
        response = await emoji.http.get(self.PATH, headers={"Range": range})

        assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")

    @pytest.mark.parametrize(
        "path",
        ["secret.txt", "../1/model.json", "..%2f..%2f..%2fjobs", "%2fetc%2fpasswd", "deep", "deep/../deep/weights.safetensors"],
    )
    async def test_only_listed_paths_are_served(self, emoji: Service, path: str) -> None:
        response = await emoji.http.get(f"/v1/models/emoji/versions/2/files/{path}")

        assert response.status_code in (200, 404)
        assert response.status_code == 404 or response.content == WEIGHTS

    async def test_a_missing_file_is_reported(self, emoji: Service) -> None:
        (emoji.artifacts / "models/emoji/2/deep/weights.safetensors").unlink()

        assert (await emoji.http.get(self.PATH)).json()["code"] == "file_missing"


class TestCompare:
    async def test_models_are_compared_with_their_teachers(self, emoji: Service) -> None:
        compared = await get(emoji, "compare", params={"models": "emoji@2,emoji@1"})

        assert [(row["name"], row["version"]) for row in compared["models"]] == [("emoji", 2), ("emoji", 1)]
        assert compared["models"][0]["evaluation"] == {"emoji": {"top1": 0.4}}
        assert compared["models"][0]["teacher_evaluation"] == {"emoji": {"top1": 0.5}}

    async def test_teachers_have_sizes_and_classes_can_be_left_out(self, service: Service) -> None:
        scores = {"top1": 0.4, "per_class": [0.5], "worst_classes": [], "ms_per_image": 2.0}
        params = {"image": 8000, "text": 900, "text_without_embedding": 300}
        evaluation = {"emoji": {"student": scores, "teacher": scores}}
        await service.register_model("big", evaluation=evaluation, teacher_params=params, teacher_macs=9000)

        whole = (await get(service, "compare", params={"models": "big"}))["models"][0]
        short = (await get(service, "compare", params={"models": ",".join(["big"] * 50), "per_class": False}))["models"]

        assert (whole["teacher_params"], whole["teacher_macs"], whole["teacher_latency_ms"]) == (params, 9000, 2.0)
        assert whole["evaluation"] == whole["teacher_evaluation"] == {"emoji": scores}
        assert short[49]["evaluation"] == short[49]["teacher_evaluation"] == {"emoji": {"top1": 0.4, "ms_per_image": 2.0}}

    @pytest.mark.parametrize(
        ("models", "status", "detail"),
        [
            ("", 422, "name 1 to 50 models"),
            ("ghost@1", 404, "there is no model ghost"),
            ("emoji@", 422, "name@version, name@alias or name@latest"),
            ("emoji@ghost", 404, "it has versions 1, 2 and aliases latest"),
        ],
    )
    async def test_invalid_names_are_refused(self, emoji: Service, models: str, status: int, detail: str) -> None:
        problem = await get(emoji, "compare", status=status, params={"models": models})

        assert detail in problem["detail"]
