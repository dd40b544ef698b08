"""What a version says about the blocks that it has inherited, after several stages."""

from pathlib import Path
from typing import Any

from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip.schemas.models import InheritedBlocks
from tinyclip_workers.inheritance.leading import leading_blocks
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.versions.ancestry import SELECTED_BLOCKS, inherited_blocks, inherited_layout

from tests.workers.models import tiny_layout

AUTO = {"inherit": "auto", "prune": {"target_sparsity": 0.5}}
MANUAL = {"student": {"text": {"layers": 2}}}
NONE = {"inherit": "none", "student": {"image": {"layers": 1}, "text": {"layers": 1}}}


def run_of(folder: Path, *stages: dict[str, Any]) -> JobAttempt:
    spec = JobSpec.model_validate({
        "name": "small", "teacher": {"model": "local-dir:/teacher"}, "data": {"train": {"shards": "/a.tar"}},
        "stages": [{"name": f"s{number}", "train": {"steps": 3}, **stage} for number, stage in enumerate(stages)],
    })  # fmt: skip
    document = JobDocument(job="job_1", name="small", spec=spec, model_name="small", model_version=2)
    return JobAttempt(ArtifactsStore(str(folder)), document, 1)


def test_blocks_of_a_later_stage_are_those_of_the_teacher(tmp_path: Path) -> None:
    run = run_of(tmp_path, MANUAL, AUTO, MANUAL)
    run.keep_selection(0, SELECTED_BLOCKS, {"image": [0, 2, 5, 6], "text": [1, 3, 4]})
    run.keep_selection(2, SELECTED_BLOCKS, {"image": [0, 3], "text": [1, 2]})

    assert inherited_blocks(run, tiny_layout()) == InheritedBlocks(image=[0, 6], text=[3, 4])
    assert inherited_layout(run, tiny_layout()) == tiny_layout()


def test_an_automatic_stage_keeps_all_blocks(tmp_path: Path) -> None:
    layout = tiny_layout()

    found = inherited_blocks(run_of(tmp_path, AUTO), layout)

    image = list(range(layout.image.layers[0])) if layout.is_vit else None
    assert found == InheritedBlocks(image=image, text=list(range(layout.text.layers)))


def test_what_was_not_recorded_or_inherited_is_unknown(tmp_path: Path) -> None:
    run = run_of(tmp_path, NONE, MANUAL)

    assert inherited_blocks(run_of(tmp_path, MANUAL), tiny_layout()) is None
    assert (inherited_blocks(run, tiny_layout()), inherited_layout(run, tiny_layout())) == (None, None)


def test_leading_parts_come_from_evenly_spaced_blocks() -> None:
    teacher, student = tiny_layout(), tiny_layout()
    deep = {"layers": 6, "heads": [2] * 6, "mlp": [64] * 6}
    teacher = teacher.model_copy(update={"text": teacher.text.model_copy(update=deep)})

    found = leading_blocks(student, teacher)

    assert found["text"] == [block * (6 // student.text.layers) for block in range(student.text.layers)]
    assert found.get("image") == (list(range(student.image.layers[0])) if student.is_vit else None)
