"""Plans of valid specs, and errors of invalid ones with their fields and remedies."""

import http.server
import io
import json
import sys
from pathlib import Path

import pytest
from tinyclip.addresses import ALLOW_PRIVATE
from tinyclip.schemas import FieldError, JobSpec, Plan
from tinyclip_workers import planner
from tinyclip_workers.model.summary import summarize, text_macs
from tinyclip_workers.plan import shards as plan_shards
from tinyclip_workers.plan import specs as plan_specs
from tinyclip_workers.plan.cost import CALIBRATION_PASSES
from tinyclip_workers.plan.specs import make_plan, plan_or_errors
from tinyclip_workers.training.calibration import CALIBRATION_PAIRS

from tests.workers import hostile_files as hostile
from tests.workers.models import tiny_layout
from tests.workers.plan_specs import INVALID, Change, Document, spec, write_data
from tests.workers.shards import color_samples, write_shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("plan"))


def test_a_stage_of_leading_parts_needs_no_calibration(folder: Path) -> None:
    document = spec(folder)
    document["stages"][1]["select"] = "leading"

    plan = plan_of(document)

    slim = plan.stages[1]
    assert slim.select == "leading"
    assert plan.teacher is not None
    assert slim.device_hours == pytest.approx(2 * 120 * (3 * slim.student.macs + plan.teacher.macs) / 60e9 / 3600)


def errors_of(document: Document) -> list[FieldError]:
    found = make_plan(JobSpec.model_validate(document))
    assert not isinstance(found, Plan), f"a plan was made, with {found.warnings}"
    return found


def plan_of(document: Document) -> Plan:
    plan = make_plan(JobSpec.model_validate(document))
    assert isinstance(plan, Plan), plan
    return plan


def test_a_valid_spec_becomes_a_plan_with_sizes_steps_and_hours(folder: Path) -> None:
    plan = plan_of(spec(folder))

    teacher = summarize(tiny_layout())
    assert plan.teacher == teacher
    assert 48 <= plan.samples_per_epoch < 64
    deep, slim = plan.stages
    assert (deep.steps, slim.steps, plan.steps) == (-(-2 * plan.samples_per_epoch // 4), 30, deep.steps + 30)
    assert teacher.macs > deep.student.macs > slim.student.macs
    assert slim.student.layout.image.width == 2
    assert slim.samples == 120
    assert (slim.select, slim.search) == ("importance", None)
    calibration = CALIBRATION_PAIRS * CALIBRATION_PASSES * deep.student.macs
    flops = 2 * (120 * (3 * slim.student.macs + teacher.macs) + calibration)
    assert slim.device_hours == pytest.approx(flops / 60e9 / 3600)
    assert plan.device_hours == pytest.approx(deep.device_hours + slim.device_hours)
    assert plan.warnings == []


def test_the_selection_of_blocks_is_part_of_the_cost(folder: Path) -> None:
    teacher, document = tiny_layout(), spec(folder)
    document["stages"][0]["train"] = {"steps": 30}

    deep = plan_of(document).stages[0]

    assert (teacher.text.layers, deep.student.layout.text.layers) == (2, 1)
    whole = summarize(teacher).macs
    calibration = CALIBRATION_PAIRS * (CALIBRATION_PASSES * whole + 2 * text_macs(teacher))
    flops = 2 * (120 * (3 * deep.student.macs + whole) + calibration)
    assert deep.device_hours == pytest.approx(flops / 60e9 / 3600)


def test_the_resolved_spec_gives_the_same_plan(folder: Path) -> None:
    plan = plan_of(spec(folder))

    again = plan_of(plan.spec.model_dump(mode="json"))

    assert plan.spec.data.train.samples == plan.samples_per_epoch
    assert plan.spec.stages[1].student is not None
    assert plan.spec.stages[1].student.embed_dim == 16
    assert again == plan


def test_a_plain_clip_needs_no_teacher(folder: Path) -> None:
    document = spec(folder)
    del document["teacher"]
    student = {"preset": "TinyCLIP-ViT-8M-16-Text-3M"}
    stage = {"name": "s", "inherit": "none", "student": student, "train": {"steps": 9}}
    document |= {"objective": {"contrastive": 1}, "stages": [stage]}

    plan = plan_of(document)

    assert plan.teacher is None
    assert round(plan.stages[0].student.image_params / 1e6, 3) == 8.277

@pytest.mark.parametrize(("change", "pointer", "message"), [case[1:] for case in INVALID], ids=[case[0] for case in INVALID])
def test_an_invalid_field_is_reported_with_the_remedy(
    folder: Path, tmp_path: Path, change: Change, pointer: str, message: str
) -> None:
    document = spec(folder)
    change(document, tmp_path)

    errors = errors_of(document)

    assert any(error.pointer == pointer and message in error.message for error in errors), errors
    assert {error.pointer.split("/")[1] for error in errors} <= {pointer.split("/")[1], "evaluation"}


def test_all_errors_are_reported_at_once(folder: Path) -> None:
    document = spec(folder)
    document["teacher"]["model"] = "ViT-B-23"
    document["data"]["train"]["caption_key"] = "cls"
    document["evaluation"]["tasks"][0]["templates"] = ["nothing"]
    document["batch_size"] = 1000

    pointers = {error.pointer for error in errors_of(document)}

    assert pointers == {"/teacher/model", "/data/train/caption_key", "/evaluation/tasks/0/templates", "/batch_size"}


def test_errors_of_both_towers_are_reported(folder: Path) -> None:
    document = spec(folder)
    document["stages"][0]["student"] = {"image": {"width": 7}, "text": {"heads": 5}}
    pair = spec(folder)
    pair["stages"][0]["student"] = {"image": {"width": 8}, "text": {"layers": 9}}

    assert {e.pointer for e in errors_of(document)} == {"/stages/0/student/image/width", "/stages/0/student/text/heads"}
    assert {e.pointer for e in errors_of(pair)} >= {"/stages/0/student/image/width", "/stages/0/student/text/layers"}
    assert {e.value for e in errors_of(document)} == {7, 5}


def test_valid_but_doubtful_settings_are_warnings(folder: Path, tmp_path: Path) -> None:
    document = spec(folder)
    samples = color_samples(20)
    samples[2]["png"] = b"broken"
    document["data"]["train"]["shards"] = write_shard(tmp_path / "t.tar", samples)
    document["optimizer"]["warmup_steps"] = 30
    document["evaluation"]["tasks"][0]["shards"] = document["data"]["train"]["shards"]
    document["stages"][0]["student"] = {"text": {"layers": 2}}
    document["batch_size"] = 8

    warnings = "\n".join(plan_of(document).warnings)

    assert "1 of 8 samples read are skipped: sample s0002" in warnings
    assert "stage slim has 30 steps, all of them inside the warm-up of 30" in warnings
    assert "task colors reads shards that are trained on" in warnings
    assert "stage deep builds a student no smaller" in warnings
    assert "json.label has 4 values, fewer than the 8 pairs" in warnings


def test_large_shards_are_sampled_and_an_epoch_is_estimated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_shards, "READ_WHOLE_BYTES", 1000)
    monkeypatch.setattr(plan_shards, "SAMPLES_PER_SHARD", 10)
    document = spec(folder)

    plan = plan_of(document)

    assert 40 <= plan.samples_per_epoch <= 80
    assert any("estimated" in warning for warning in plan.warnings)
    assert plan.spec.data.train.samples is None


def test_a_changed_shard_is_inspected_again(folder: Path, tmp_path: Path) -> None:
    document = spec(folder)
    document["data"]["train"]["shards"] = write_shard(tmp_path / "t.tar", color_samples(20))
    first = plan_of(document)

    write_shard(tmp_path / "t.tar", color_samples(40))

    assert plan_of(document).samples_per_epoch > first.samples_per_epoch


def test_a_spec_that_violates_the_schema_is_answered_with_its_fields() -> None:
    assert plan_or_errors({"name": "x"})["errors"][0]["pointer"] == "/data"


def test_a_process_reports_when_its_memory_is_too_little(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = io.StringIO()
    monkeypatch.setattr(planner, "take_stdout", lambda: answers)
    monkeypatch.setattr(plan_specs, "make_plan", lambda *_: bytearray(1 << 62))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"id": "b", "spec": spec(folder)}) + "\n"))

    planner.main()

    assert json.loads(answers.getvalue().splitlines()[-1]) == {"id": "b", "exhausted": True}


@pytest.mark.parametrize("stamp", [None, "ETag", "Last-Modified"])
def test_a_shard_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamp: str | None) -> None:
    monkeypatch.setenv(ALLOW_PRIVATE, "1")
    key = "one"

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        write_shard(tmp_path / "a.tar", [{"__key__": key, "txt": "a cat"}])
        request.send_response(200)
        if stamp is not None:
            request.send_header(stamp, key)
        request.end_headers()
        request.wfile.write((tmp_path / "a.tar").read_bytes())

    with hostile.server(answer) as address:
        first = plan_shards.inspect_shards(f"{address}/a.tar")
        key = "two"
        second = plan_shards.inspect_shards(f"{address}/a.tar")

    assert [found.samples[0]["__key__"] for found in (first, second)] == ["one", "two"]


def test_an_internal_error_costs_its_question_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = io.StringIO()
    monkeypatch.setattr(planner, "take_stdout", lambda: answers)
    monkeypatch.setattr(plan_specs, "make_plan", lambda *_: {}["hunter2"])
    questions = [{"id": "a", "spec": spec(folder)}, {"id": "b", "spec": {}}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(question) + "\n" for question in questions)))

    planner.main()

    first, second = (json.loads(line) for line in answers.getvalue().splitlines()[-2:])
    assert first == {"id": "a", "failed": True}
    assert (second["id"], second["errors"][0]["pointer"]) == ("b", "/name")
    assert "KeyError: 'hunter2'" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["classes", "templates"])
@pytest.mark.parametrize(
    "content", ["hunter2\n", "PASSWORD=hunter2\0HOME=/root\0", '["hunter2", {"a": "hunter2"}]', '["hunter2'],
    ids=["lines", "nulls", "list", "no list"],
)
def test_no_content_of_a_file_that_a_task_names_is_repeated(folder: Path, tmp_path: Path, field: str, content: str) -> None:
    (tmp_path / "secret").write_text(content * 2)
    document = spec(folder)
    document["evaluation"]["tasks"][0][field] = str(tmp_path / "secret")

    answer = plan_or_errors(document)

    assert answer["errors"]
    assert "hunter2" not in json.dumps(answer)


@pytest.mark.parametrize("member", ["label", "odd", "captions"])
def test_no_text_of_a_sample_is_repeated(tmp_path: Path, folder: Path, member: str) -> None:
    samples = [{**sample, "cls": "hunter2", "json": {**sample["json"], member: "hunter2"}} for sample in color_samples(20)]
    write_shard(tmp_path / "0.tar", samples)
    document = spec(folder)
    key = f"json.{member}"
    document["data"]["train"] |= {"shards": f"{tmp_path}/0.tar", "caption_key": key, "distinct_key": key}
    document["evaluation"]["tasks"][0] |= {"shards": f"{tmp_path}/0.tar", "where": {member: "another"}}

    answer = plan_or_errors(document)

    assert answer["errors"]
    assert "hunter2" not in json.dumps(answer)


def test_malformed_json_beside_a_missing_label_is_an_error_of_its_field(tmp_path: Path, folder: Path) -> None:
    samples = [{**sample, "json": b"{"} for sample in color_samples(20)]
    write_shard(tmp_path / "0.tar", samples)
    document = spec(folder)
    document["evaluation"]["tasks"][2] |= {"train_shards": f"{tmp_path}/0.tar", "label_key": "absent"}

    assert "/evaluation/tasks/2/label_key" in [error.pointer for error in errors_of(document)]


def test_two_classes_of_one_name_are_a_warning_if_labels_are_numbers(folder: Path) -> None:
    document = spec(folder)
    document["evaluation"]["tasks"][0]["classes"] = ["red", "red", "blue", "white"]

    assert "'red' names 2 classes ([0, 1], from 0), which no text can distinguish" in plan_of(document).warnings[0]
