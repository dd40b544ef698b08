"""Label sets: registered once, shared by all replicas, and cheap to query."""

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tinyclip._http.backends import BlockingBackend, run
from tinyclip._http.retries import Retries
from tinyclip._http.transport import Transport
from tinyclip._resources.student import Student
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.errors import NotFound
from tinyclip.schemas import LabelSet
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica import label_sets
from tinyclip_workers.serving.replica.label_sets import LabelSets

from tests.workers.student_server import Served, serving, serving_options
from tests.workers.students import base64_image, encoded, random_image

LABELS, TEMPLATES = ["cat", "dog", "house"], ["a photo of a {}.", "{}, drawn"]


@pytest.fixture(scope="module")
def served(artifacts: Path) -> Iterator[Served]:
    with serving(serving_options(artifacts)) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


class TestRoutes:
    def test_a_set_is_created_read_replaced_and_deleted(self, http: httpx.Client, artifacts: Path) -> None:
        made = http.put("/label-sets/pets", json={"labels": LABELS, "templates": TEMPLATES})
        again = http.put("/label-sets/pets", json={"labels": ["cat"]})

        assert (made.status_code, again.status_code) == (201, 200)
        assert made.json() == {"name": "pets", "labels": LABELS, "templates": TEMPLATES}
        assert http.get("/label-sets/pets").json() == {"name": "pets", "labels": ["cat"], "templates": ["{}"]}
        assert json.loads((artifacts / "deployments/demo/label-sets/pets.json").read_text())["labels"] == ["cat"]

        assert http.delete("/label-sets/pets").status_code == 204
        assert problem(http.get("/label-sets/pets"), 404)["code"] == "no_such_label_set"
        assert problem(http.delete("/label-sets/pets"), 404)["code"] == "no_such_label_set"

    def test_the_list_is_paginated_by_name(self, http: httpx.Client) -> None:
        for name in ("c", "a", "b"):
            http.put(f"/label-sets/{name}", json={"labels": LABELS, "templates": TEMPLATES})

        first = http.get("/label-sets?page_size=2").json()
        second = http.get("/label-sets", params={"page_token": first["next_page_token"]}).json()

        assert [item["name"] for item in first["items"]] == ["a", "b"]
        assert first["items"][0] == {"name": "a", "labels": 3, "templates": 2}
        assert ([item["name"] for item in second["items"]], second["next_page_token"]) == (["c"], None)
        assert problem(http.get("/label-sets?page_size=0"), 422)["errors"][0]["pointer"] == "/page_size"

    @pytest.mark.parametrize(
        ("name", "body", "pointer"),
        [
            ("No", {"labels": LABELS}, "/name"),
            ("..%2Fx", {"labels": LABELS}, "/name"),
            ("x", {}, "/labels"),
            ("x", {"labels": []}, "/labels"),
            ("x", {"labels": ["a", " "]}, "/labels/1"),
            ("x", {"labels": ["a"], "templates": ["b"]}, "/templates/0"),
            ("x", {"labels": ["a"], "template": "{}"}, "/template"),
            ("x", {"labels": ["l"] * 3000, "templates": ["{}"] * 100}, "/templates"),
            ("x", {"labels": ["a", "l" * 1001]}, "/labels/1"),
            ("x", {"labels": ["a"], "templates": ["{}" + "t" * 999]}, "/templates/0"),
            ("x", {"labels": [f"{number}{'l' * 990}" for number in range(1100)]}, "/labels"),
        ],
    )
    def test_invalid_sets_are_rejected_and_not_stored(
        self, http: httpx.Client, artifacts: Path, name: str, body: dict[str, Any], pointer: str
    ) -> None:
        before = {path: path.read_bytes() for path in artifacts.rglob("*.json")}
        answer = http.put(f"/label-sets/{name}", json=body)

        if "%2F" in name:
            assert answer.status_code in (404, 422)
        else:
            assert pointer in [error["pointer"] for error in problem(answer, 422)["errors"]]
        assert {path: path.read_bytes() for path in artifacts.rglob("*.json")} == before


class TestZeroShot:
    def test_a_set_gives_the_scores_of_its_labels(self, http: httpx.Client) -> None:
        http.put("/label-sets/pets", json={"labels": LABELS, "templates": TEMPLATES})

        by_set = http.post("/zero-shot", json={"image": base64_image(0), "label_set": "pets"})
        by_form = http.post("/zero-shot", files={"image": encoded(random_image(0))}, data={"label_set": "pets"})
        by_labels = http.post("/zero-shot", json={"image": base64_image(0), "labels": LABELS, "templates": TEMPLATES})

        assert by_set.json() == by_form.json() == by_labels.json()
        assert len(by_set.json()["results"][0]) == 3

    @pytest.mark.parametrize(
        ("changes", "status", "pointer"),
        [
            ({"label_set": "nowhere"}, 404, None),
            ({"label_set": "pets", "labels": LABELS}, 422, "/labels"),
            ({"label_set": "pets", "templates": TEMPLATES}, 422, "/templates"),
            ({"label_set": "Not a name"}, 422, "/label_set"),
            ({}, 422, "/labels"),
        ],
    )
    def test_rejections(self, http: httpx.Client, changes: dict[str, Any], status: int, pointer: str | None) -> None:
        rejection = problem(http.post("/zero-shot", json={"image": base64_image(0), **changes}), status)

        assert [error["pointer"] for error in rejection["errors"]] == ([pointer] if pointer else [])

    def test_a_thousand_cached_labels_cost_as_much_as_ten(self, http: httpx.Client) -> None:
        """An image of this small student costs little, so that the labels would be noticed. Ratio of medians, in turn."""
        many = [f"label number {i} of many" for i in range(1000)]
        for name, labels in (("ten", many[:10]), ("thousand", many)):
            http.put(f"/label-sets/{name}", json={"labels": labels})
        times: dict[str, list[float]] = {"ten": [], "thousand": []}
        for round in range(43):
            for name, taken in times.items():
                began = time.process_time()
                http.post("/zero-shot", json={"image": base64_image(1), "label_set": name}).raise_for_status()
                if round >= 3:
                    taken.append(time.process_time() - began)

        assert statistics.median(times["thousand"]) <= 1.3 * statistics.median(times["ten"])


class TestSdk:
    """The SDK's label sets, against a real deployment."""

    def test_it_creates_queries_and_deletes(self, served: Served) -> None:
        transport = Transport(served.endpoint, None, 30, Retries(attempts=1), BlockingBackend(httpx.HTTPTransport()))
        student = Student(transport, served.endpoint)
        try:
            made = student.label_sets.put("mine", LABELS, templates=TEMPLATES)
            by_set = student.zero_shot([encoded(random_image(0)), b"no image"], label_set="mine", on_error="skip")
            by_labels = student.classify(encoded(random_image(0)), LABELS, templates=TEMPLATES)

            assert (made, student.label_sets.get("mine")) == (LabelSet(name="mine", labels=LABELS, templates=TEMPLATES),) * 2
            assert by_set.results == [by_labels, None]
            assert [error.pointer for error in by_set.errors] == ["/images/1"]
            assert "mine" in [found.name for found in student.label_sets.list()]
            student.label_sets.delete("mine")
            with pytest.raises(NotFound):
                student.classify(encoded(random_image(0)), label_set="mine")
        finally:
            run(transport.close())


class TestReplicas:
    """Two replicas of one deployment, which share a store."""

    @pytest.fixture
    def one(self, tmp_path: Path) -> LabelSets:
        return LabelSets("demo", ArtifactsStore(str(tmp_path)))

    @pytest.fixture
    def other(self, tmp_path: Path) -> LabelSets:
        return LabelSets("demo", ArtifactsStore(str(tmp_path)))

    async def test_a_new_set_is_found_by_every_replica_at_once(self, one: LabelSets, other: LabelSets) -> None:
        await one.put("pets", LABELS, TEMPLATES)

        assert (await other.get("pets")).labels == LABELS

    async def test_a_change_takes_effect_everywhere_after_the_refresh_interval(
        self, one: LabelSets, other: LabelSets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await one.put("pets", LABELS, TEMPLATES)
        await other.get("pets")
        await one.put("pets", ["bird"], ["{}"])
        assert (await other.get("pets")).labels == LABELS

        later = time.monotonic() + label_sets.REFRESH_SECONDS
        monkeypatch.setattr(label_sets, "monotonic", lambda: later)
        assert (await other.get("pets")).labels == ["bird"]

        await one.delete("pets")
        later += label_sets.REFRESH_SECONDS
        with pytest.raises(ProblemError, match="there is no label set pets"):
            await other.get("pets")

    async def test_deployments_do_not_share_sets(self, one: LabelSets, tmp_path: Path) -> None:
        await one.put("pets", LABELS, TEMPLATES)

        assert await LabelSets("another", ArtifactsStore(str(tmp_path))).names() == []

    async def test_the_memory_of_cached_sets_is_limited(self, one: LabelSets, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(label_sets, "MAX_CACHED_BYTES", 5000)
        for name in ("a", "b", "c"):
            await one.put(name, [name * 1000, name * 900], ["{}"])

        assert list(one._cache) == ["b", "c"]
        await one.get("a")
        assert list(one._cache) == ["c", "a"]
        await one.put("b", ["b" * 6000], ["{}"])
        assert list(one._cache) == []
        assert (await one.get("b")).labels == ["b" * 6000]

    async def test_a_list_reads_few_sets_at_once(self, one: LabelSets, other: LabelSets, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [f"set-{number:02}" for number in range(20)]
        for name in names:
            await one.put(name, LABELS, TEMPLATES)
        running = most = 0
        read = other._read_into_cache

        async def counted(name: str) -> LabelSet:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await read(name)
            finally:
                running -= 1

        monkeypatch.setattr(other, "_read_into_cache", counted)

        assert [one.name for one in await other.summaries([*names, "gone"])] == names
        assert most == label_sets.READ_AT_ONCE

    async def test_the_number_of_sets_is_limited(self, one: LabelSets, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(label_sets, "MAX_SETS", 1)
        await one.put("pets", LABELS, TEMPLATES)
        await one.put("pets", ["bird"], ["{}"])

        with pytest.raises(ProblemError) as rejected:
            await one.put("more", LABELS, TEMPLATES)

        assert rejected.value.problem.status == 409
        assert await one.names() == ["pets"]
