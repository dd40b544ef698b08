"""The job that measures the finalists of a search: its result and events, also after a kill, a deletion and failures."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save
from tinyclip.addresses import ARTIFACTS_ROOT
from tinyclip.artifacts.paths import model_version
from tinyclip.artifacts.searches import Finalists, FinalistsRequest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON
from tinyclip.schemas.deployments import EngineName
from tinyclip_workers import jobs
from tinyclip_workers.engines import openvino_engine
from tinyclip_workers.engines.builder import EngineBuilder
from tinyclip_workers.engines.calibration import MIN_CALIBRATION_IMAGES
from tinyclip_workers.engines.protocol import Engine, EngineReport
from tinyclip_workers.finalists import measuring
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.versions.writer import model_files, version_document, write_version

from tests.workers.auto_stages import TEACHER
from tests.workers.evaluations import evaluate
from tests.workers.models import tiny_layout, tiny_model
from tests.workers.served_students import write_kind
from tests.workers.shards import COLORS, color_samples, write_shard

ID = "sea_1"
TRAINED = {
    "name": "colors", "teacher": {"model": "ViT-B-32", "pretrained": "openai"},
    "stages": [{"name": "a", "student": {"text": {"layers": 1}}, "train": {"steps": 1}}],
    "data": {"train": {"shards": "/train.tar", "holdout": 0.5}},
}  # fmt: skip


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shard(tmp_path_factory.mktemp("shards") / "val.tar", color_samples(20))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactsStore:
    """A store with two versions."""
    store = ArtifactsStore(str(tmp_path))
    monkeypatch.setenv(ARTIFACTS_ROOT, store.root)
    monkeypatch.setattr(measuring, "measure_engines", partial(measuring.measure_engines, rounds=1, seconds=0.0))
    for number in (1, 2):
        register(store, number)
    return store


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The versions and engines that were built."""
    found: list[tuple[str, str]] = []
    build = EngineBuilder.build

    def recorded(builder: EngineBuilder, name: EngineName, report: EngineReport) -> Engine:
        found.append((builder.loaded.name, name))
        return build(builder, name, report)

    monkeypatch.setattr(EngineBuilder, "build", recorded)
    return found


def register(store: ArtifactsStore, number: int, **lineage: Any) -> None:
    layout = tiny_layout()
    files = model_files(layout, save(tiny_model(number).state_dict()), OPENAI_MEAN, OPENAI_STD, None)
    write_version(
        store, model_version("colors", number), version_document("colors", number, summarize(layout), lineage=lineage), files
    )


def finalist(number: int) -> JSON:
    """Trial number n has version n + 1."""
    name = f"colors@{number + 1}"
    return {"trial": number, "model": {"name": name, "source": {"model": f"registry:{name}"}}}


def write_request(store: ArtifactsStore, shard: str, attempt: int = 1, **changes: Any) -> None:
    task = {"name": "colors", "kind": "zero_shot", "shards": shard, "classes": list(COLORS)}
    hardware = [{"device": "cpu"}, {"device": "cpu", "tower": "text", "batch": 8}]
    request = {
        "finalists": [finalist(0), finalist(1)], "hardware": hardware, "tasks": [task], "attempt": attempt, **changes
    }  # fmt: skip
    store.write_bytes(f"searches/{ID}/finalists-request.json", json.dumps(request).encode())


def request_of(store: ArtifactsStore) -> FinalistsRequest:
    return FinalistsRequest.model_validate_json(store.read_bytes(f"searches/{ID}/finalists-request.json"))


def run(store: ArtifactsStore, attempt: int = 1) -> int:
    return jobs.main(["finalists", "--artifacts", store.root, "--search", ID, "--attempt", str(attempt)])


def events(store: ArtifactsStore, attempt: int = 1) -> list[JSON]:
    folder = f"searches/{ID}/finalists/attempts/{attempt}/events"
    return [json.loads(line) for name in store.list(folder) for line in store.read_bytes(f"{folder}/{name}").splitlines()]


def result(store: ArtifactsStore) -> Finalists:
    return Finalists.model_validate_json(store.read_bytes(f"searches/{ID}/finalists.json"))


def folder_of(store: ArtifactsStore, number: int) -> Path:
    return Path(store.root) / model_version("colors", number)


def test_each_finalist_is_measured_in_each_engine(store: ArtifactsStore, shard: str) -> None:
    write_request(store, shard)

    assert run(store) == 0

    found = result(store)
    assert {trial: [each.engine for each in of_trial] for trial, of_trial in found.measurements.items()} == {
        0: ["torch", "torch-bf16"], 1: ["torch", "torch-bf16"],
    }  # fmt: skip
    assert found.left_out == {}
    for of_trial in found.measurements.values():
        for each in of_trial:
            assert set(each.latency_ms) == {"image:1", "text:8"}
            assert all(0 < ms < 1000 for ms in each.latency_ms.values())
            assert each.bytes == (folder_of(store, 1) / "open_clip_model.safetensors").stat().st_size
    types = [event["type"] for event in events(store)]
    assert (types[0], types[-1]) == ("finalists.started", "finalists.finished")
    assert [event["data"]["fraction"] for event in events(store) if event["type"] == "finalists.progress"] == [0.25, 0.5, 0.75, 1]
    assert events(store)[-1]["data"] == found.model_dump(mode="json")


def test_quality_in_torch_is_that_of_an_evaluation(store: ArtifactsStore, shard: str) -> None:
    register(store, 2, spec=TRAINED)
    held_out = {"name": "held_out", "kind": "retrieval", "shards": shard, "subset": "holdout"}
    write_request(store, shard, finalists=[finalist(1)], tasks=[held_out])

    assert run(store) == 0

    request = request_of(store)
    expected = evaluate({"it": load_folder(str(folder_of(store, 2)))}, request.tasks[0], holdout=0.5)["it"]
    quality = result(store).measurements[1][0].quality["held_out"]
    assert quality == {name: expected[name] for name in quality}
    assert "text_to_image_r10" in quality
    assert not {"ms_per_image", "samples"} & set(quality)


def test_a_later_attempt_continues_after_what_was_measured(
    store: ArtifactsStore, shard: str, built: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_request(store, shard)
    evaluate_tasks, passes = measuring.evaluate_tasks, []

    def killed(*arguments: Any, **settings: Any) -> Any:
        passes.append(arguments)
        if len(passes) == 2:
            raise OSError("killed")
        return evaluate_tasks(*arguments, **settings)

    monkeypatch.setattr(measuring, "evaluate_tasks", killed)
    assert run(store) == 1
    assert built == [("colors@1", "torch"), ("colors@2", "torch"), ("colors@1", "torch"), ("colors@2", "torch")]
    built.clear()
    write_request(store, shard, attempt=2)
    assert run(store, 2) == 0

    assert events(store)[-1]["data"]["code"] == "finalists_failed"
    assert built[0] == ("colors@2", "torch")  # its quality; latencies, and all of the other one, were kept
    assert {name for _, name in built[1:]} == {"torch-bf16"}
    assert len(passes) == 5
    assert [len(of_trial) for of_trial in result(store).measurements.values()] == [2, 2]


def test_an_attempt_that_finds_the_result_of_its_request_reports_it_again(
    store: ArtifactsStore, shard: str, built: list[tuple[str, str]]
) -> None:
    write_request(store, shard, finalists=[finalist(0)])
    assert run(store) == 0
    built.clear()
    write_request(store, shard, attempt=2, finalists=[finalist(0)])

    assert run(store, 2) == 0

    assert built == []
    assert [event["type"] for event in events(store, 2)] == ["finalists.finished"]
    assert events(store, 2)[-1]["data"] == events(store)[-1]["data"]


def test_a_second_request_measures_other_finalists(store: ArtifactsStore, shard: str, built: list[tuple[str, str]]) -> None:
    write_request(store, shard, finalists=[finalist(0)])
    assert run(store) == 0
    built.clear()
    write_request(store, shard, attempt=2)

    assert run(store, 2) == 0

    assert {name for name, _ in built} == {"colors@2"}
    assert set(result(store).measurements) == {0, 1}
    assert set(events(store, 2)[-1]["data"]["measurements"]) == {"0", "1"}


def test_a_deleted_search_and_a_later_attempt_end_it_without_a_result(
    store: ArtifactsStore, shard: str, built: list[tuple[str, str]]
) -> None:
    assert run(store) == 0
    write_request(store, shard, attempt=2)
    assert run(store) == 0

    assert built == []
    assert events(store) == []
    assert not store.exists(f"searches/{ID}/finalists.json")


def test_an_engine_that_fails_for_one_version_is_left_out(
    store: ArtifactsStore, shard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = EngineBuilder.build

    def failing(builder: EngineBuilder, name: EngineName, report: EngineReport) -> Engine:
        if (builder.loaded.name, name) == ("colors@2", "torch-bf16"):
            raise RuntimeError("no kernel")
        return build(builder, name, report)

    monkeypatch.setattr(EngineBuilder, "build", failing)
    write_request(store, shard)

    assert run(store) == 0

    found = result(store)
    assert [each.engine for each in found.measurements[1]] == ["torch"]
    assert len(found.measurements[0]) == 2
    assert found.left_out == {1: {"torch-bf16": "RuntimeError: no kernel"}}
    assert any("colors@2 is not measured in torch-bf16" in event["message"] for event in events(store))


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a ViT, whose converted towers are taken from the cache that all tests share."""
    folder = write_kind(tmp_path / "vit", "vit")
    towers = EngineBuilder(load_folder(str(folder)), None).converted_towers()
    for name in ("image", "text"):
        model = openvino_engine.read_model(towers / f"{name}.xml")
        monkeypatch.setattr(openvino_engine, f"convert_{name}_tower", lambda loaded, model=model: model)
    return folder


def test_openvino_is_measured_where_it_is_named(store: ArtifactsStore, shard: str, converted: Path) -> None:
    document = version_document("colors", 3, summarize(TEACHER))
    write_version(store, model_version("colors", 3), document, {path.name: path.read_bytes() for path in converted.iterdir()})
    write_request(store, shard, finalists=[finalist(2)], hardware=[{"engine": "openvino-int8", "device": "cpu", "threads": 2}])

    assert run(store) == 0

    found = {each.engine: each for each in result(store).measurements[2]}
    assert list(found) == ["torch", "torch-bf16", "openvino", "openvino-bf16"]
    assert all(set(each.latency_ms) == {"image:1:2"} for each in found.values())
    assert found["openvino"].quality["colors"]["top1"] == found["torch"].quality["colors"]["top1"]
    sizes = [found[name].bytes or 0 for name in ("openvino-bf16", "openvino", "torch")]
    assert sizes[0] == sizes[1] == pytest.approx(sizes[2], rel=0.1)
    assert f"at least {MIN_CALIBRATION_IMAGES} images, which int8" in result(store).left_out[2]["openvino-int8"]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"finalists": [finalist(6)]}, "unreadable_model", "there is no model folder"),
        ({"hardware": [{"engine": "auto"}]}, "finalists_failed", "is not a request for finalists"),
        ({"tasks": [{"name": "x", "kind": "retrieval", "shards": "/nowhere.tar"}]}, "unreadable_data", "can be read"),
    ],
)
def test_a_request_that_cannot_be_met_fails(store: ArtifactsStore, shard: str, changes: JSON, code: str, message: str) -> None:
    write_request(store, shard, **changes)

    assert run(store) == 1

    failed = events(store)[-1]
    assert (failed["type"], failed["data"]["code"]) == ("finalists.failed", code)
    assert message in failed["message"]
