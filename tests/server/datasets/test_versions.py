"""Versions of data sets: found by number or alias, with their reports, and deleted one by one."""

import json
from pathlib import Path

import pytest
from tinyclip.artifacts.paths import dataset_version

from tests.server.datasets.pairs import EMOJI, NAME, get, put, register
from tests.server.events import dataset_finished
from tests.server.service import Service, on_both_databases


def folder_of(service: Service, version: int) -> Path:
    return service.artifacts / dataset_version(NAME, version)


@on_both_databases
async def test_versions_are_listed_newest_first(service: Service) -> None:
    for digest in ("aa", "bb", "cc"):
        await register(service, digest=digest * 32)
    await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 2})

    first = (await service.http.get(f"{EMOJI}/versions", params={"page_size": 2})).json()
    rest = await service.items(f"{EMOJI}/versions", page_token=first["next_page_token"])

    assert [(each["version"], each["aliases"]) for each in first["items"]] == [(3, []), (2, ["best"])]
    assert [(each["version"], each["digest"][:2]) for each in rest] == [(1, "aa")]


class TestGet:
    @pytest.mark.parametrize(("which", "number"), [("1", 1), ("best", 1), ("latest", 2)])
    async def test_a_version_is_found_by_number_alias_or_latest(self, service: Service, which: str, number: int) -> None:
        await register(service)
        await register(service)
        await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})

        version = await service.get(f"{EMOJI}/versions/{which}")

        assert (version["name"], version["version"], version["pairs"]) == (NAME, number, 90)
        assert version["caption_stats"]["distinct"] == 95

    @pytest.mark.parametrize("which", ["9", "9" * 30, "worst", "٣"])
    async def test_an_unknown_one_is_not_found_with_the_known_ones(self, service: Service, which: str) -> None:
        await register(service)

        problem = await service.call("GET", f"{EMOJI}/versions/{which}", status=404)

        assert problem["code"] == "no_such_version"
        assert problem["detail"].endswith("it has versions 1 and aliases latest")

    async def test_a_data_set_without_versions_says_so(self, service: Service) -> None:
        await put(service)

        problem = await service.call("GET", f"{EMOJI}/versions/latest", status=404)

        assert problem["detail"].endswith("it has none yet")

    async def test_the_number_of_the_request_counts_not_that_of_the_document(self, service: Service) -> None:
        await put(service)
        await service.reconcile("datasets")
        service.emit(dataset_finished("other", 7))
        await service.reconcile("datasets")

        version = await service.get(f"{EMOJI}/versions/1")

        assert (version["name"], version["version"]) == (NAME, 1)


class TestReport:
    async def test_it_has_findings_with_examples_and_remedies(self, service: Service) -> None:
        await register(service)

        report = await service.get(f"{EMOJI}/versions/latest/report")

        [finding] = report["findings"]
        assert (report["samples"], report["usable"]) == (100, 95)
        assert (finding["code"], finding["count"], finding["remedy"]) == ("duplicate_captions", 5, "remove them")
        assert finding["examples"][0]["key"] == "a"

    async def test_a_missing_one_is_not_found(self, service: Service) -> None:
        await register(service)
        (folder_of(service, 1) / "report.json").unlink()

        problem = await service.call("GET", f"{EMOJI}/versions/1/report", status=404)

        assert problem["code"] == "file_missing"


class TestDelete:
    async def test_a_version_is_hidden_at_once_and_its_files_are_removed_later(self, service: Service) -> None:
        await register(service)
        await register(service)
        await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})

        response = await service.http.delete(f"{EMOJI}/versions/1")
        hidden = await get(service)
        existed = folder_of(service, 1).exists()
        await service.reconcile("datasets")

        assert (response.status_code, existed) == (204, True)
        assert (hidden["versions"], hidden["aliases"], hidden["latest"]) == ([2], {}, 2)
        assert (await service.http.get(f"{EMOJI}/versions/1")).status_code == 404
        assert not folder_of(service, 1).exists()
        assert json.loads((folder_of(service, 2) / "report.json").read_text())["samples"] == 100

    @on_both_databases
    async def test_not_while_a_job_trains_on_it(self, service: Service) -> None:
        await register(service)
        await register(service)
        job = await service.submit(data={"train": {"dataset": "emoji@1"}})

        problem = await service.call("DELETE", f"{EMOJI}/versions/1", status=409)
        other = await service.http.delete(f"{EMOJI}/versions/2")

        assert (problem["code"], job["id"] in problem["detail"], other.status_code) == ("dataset_in_use", True, 204)

    async def test_not_while_the_data_set_is_registered(self, service: Service) -> None:
        await register(service)
        await put(service)

        problem = await service.call("DELETE", f"{EMOJI}/versions/1", status=409)

        assert problem["code"] == "dataset_registering"
        assert (await get(service))["versions"] == [1]

    async def test_the_next_registration_has_no_version_to_compare_with(self, service: Service) -> None:
        await register(service)
        await service.http.delete(f"{EMOJI}/versions/1")
        await put(service)
        await service.reconcile("datasets")

        request = service.ray_request()
        assert (request["version"], request["previous"]) == (2, None)
