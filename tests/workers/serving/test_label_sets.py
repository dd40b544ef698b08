"""Label sets: registered once, known to every replica, cheap to ask for."""

import base64
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
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica import label_sets
from tinyclip_workers.serving.replica.label_sets import LabelSets

from tests.workers.student_server import Served, serving
from tests.workers.students import encoded, random_image, write_student

LABELS, TEMPLATES = ["cat", "dog", "house"], ["a photo of a {}.", "{}, drawn"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Served]:
    folder = write_student(root / "models/student/1")
    options = ServingOptions(
        engine="torch", name="demo", model="student@1", model_uri=str(folder), artifacts=str(root), batch_wait_s=0
    )  # fmt: skip
    with serving(options) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.endpoint, trust_env=False, timeout=30) as client:
        yield client


def image(seed: int = 0) -> str:
    return base64.b64encode(encoded(random_image(seed))).decode()


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


class TestRoutes:
    def test_a_set_is_registered_looked_at_replaced_and_removed(self, http: httpx.Client, root: Path) -> None:
        made = http.put("/label-sets/pets", json={"labels": LABELS, "templates": TEMPLATES})
        again = http.put("/label-sets/pets", json={"labels": ["cat"]})

        assert (made.status_code, again.status_code) == (201, 200)
        assert made.json() == {"name": "pets", "labels": LABELS, "templates": TEMPLATES}
        assert http.get("/label-sets/pets").json() == {"name": "pets", "labels": ["cat"], "templates": ["{}"]}
        assert json.loads((root / "deployments/demo/label-sets/pets.json").read_text())["labels"] == ["cat"]

        assert http.delete("/label-sets/pets").status_code == 204
        assert problem(http.get("/label-sets/pets"), 404)["code"] == "no_such_label_set"
        assert problem(http.delete("/label-sets/pets"), 404)["code"] == "no_such_label_set"

    def test_the_list_comes_in_pages_by_name(self, http: httpx.Client) -> None:
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
        ],
    )
    def test_what_cannot_be_used_is_named_and_not_kept(
        self, http: httpx.Client, root: Path, name: str, body: dict[str, Any], pointer: str
    ) -> None:
        before = {path: path.read_bytes() for path in root.rglob("*.json")}
        answer = http.put(f"/label-sets/{name}", json=body)

        if "%2F" in name:
            assert answer.status_code in (404, 422)
        else:
            assert pointer in [error["pointer"] for error in problem(answer, 422)["errors"]]
        assert {path: path.read_bytes() for path in root.rglob("*.json")} == before


class TestZeroShot:
    def test_a_set_gives_the_scores_of_its_labels(self, http: httpx.Client) -> None:
        http.put("/label-sets/pets", json={"labels": LABELS, "templates": TEMPLATES})

        by_set = http.post("/zero-shot", json={"image": image(), "label_set": "pets"})
        by_form = http.post("/zero-shot", files={"image": encoded(random_image(0))}, data={"label_set": "pets"})
        by_labels = http.post("/zero-shot", json={"image": image(), "labels": LABELS, "templates": TEMPLATES})

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
    def test_what_does_not_fit(self, http: httpx.Client, changes: dict[str, Any], status: int, pointer: str | None) -> None:
        refused = problem(http.post("/zero-shot", json={"image": image(), **changes}), status)

        assert [error["pointer"] for error in refused["errors"]] == ([pointer] if pointer else [])

    def test_a_thousand_warm_labels_cost_what_ten_do(self, http: httpx.Client) -> None:
        """In a student of two narrow layers an image costs little, so that labels would show; ratio of medians, taken in turn."""
        many = [f"label number {i} of many" for i in range(1000)]
        for name, labels in (("ten", many[:10]), ("thousand", many)):
            http.put(f"/label-sets/{name}", json={"labels": labels})
        times: dict[str, list[float]] = {"ten": [], "thousand": []}
        for round in range(43):
            for name, taken in times.items():
                began = time.process_time()
                http.post("/zero-shot", json={"image": image(1), "label_set": name}).raise_for_status()
                if round >= 3:
                    taken.append(time.process_time() - began)

        assert statistics.median(times["thousand"]) <= 1.3 * statistics.median(times["ten"])


class TestSdk:
    """Our own client, against a real student."""

    def test_it_registers_asks_and_forgets(self, served: Served) -> None:
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
    """Two replicas of one deployment see the same store."""

    @pytest.fixture
    def one(self, tmp_path: Path) -> LabelSets:
        return LabelSets("demo", ArtifactsStore(str(tmp_path)))

    @pytest.fixture
    def other(self, tmp_path: Path) -> LabelSets:
        return LabelSets("demo", ArtifactsStore(str(tmp_path)))

    async def test_a_set_that_is_new_to_a_replica_is_found_at_once(self, one: LabelSets, other: LabelSets) -> None:
        await one.put("pets", LABELS, TEMPLATES)

        assert (await other.get("pets")).labels == LABELS

    async def test_a_change_is_known_everywhere_after_a_moment(
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

    async def test_deployments_do_not_see_each_others_sets(self, one: LabelSets, tmp_path: Path) -> None:
        await one.put("pets", LABELS, TEMPLATES)

        assert await LabelSets("another", ArtifactsStore(str(tmp_path))).names() == []

    async def test_there_may_be_so_many_and_no_more(self, one: LabelSets, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(label_sets, "MAX_SETS", 1)
        await one.put("pets", LABELS, TEMPLATES)
        await one.put("pets", ["bird"], ["{}"])

        with pytest.raises(ProblemError) as refused:
            await one.put("more", LABELS, TEMPLATES)

        assert refused.value.problem.status == 409
        assert await one.names() == ["pets"]
