"""A job with one manual stage, as far as its model version needs it."""

from pathlib import Path

from open_clip.model import CLIP
from safetensors.torch import save
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.runtime.attempt import FinishedStudent, JobAttempt
from tinyclip_workers.training.stage import Stage, resolve_stage

from tests.workers.models import tiny_layout, tiny_model
from tests.workers.shards import color_samples, write_shard

EVALUATION = {
    "colors": {
        "student": {"top1": 0.81, "top5": 0.99, "per_class": [0.5, None], "samples": 40, "skipped": 0, "ms_per_image": 1.25},
        "teacher": {"top1": 0.912, "top5": 1.0, "per_class": [0.9, None], "samples": 40, "skipped": 0, "ms_per_image": 2.5},
    }
}


def job_run(tmp_path: Path, *, name: str = "job_1", root: str | None = None) -> tuple[JobAttempt, Stage]:
    """Return the run of a job with the teacher `tmp_path/teacher`, and its stage."""
    shard = write_shard(tmp_path / "train.tar", color_samples(4))
    spec = JobSpec.model_validate(
        {
            "name": "small",
            "teacher": {"model": f"local-dir:{tmp_path}/teacher"},
            "data": {"train": {"shards": shard}},
            "stages": [{"name": "half", "student": {"text": {"layers": 1}}, "train": {"steps": 3}}],
        }
    )
    document = JobDocument(job=name, name="small", spec=spec, model_name="small", model_version=2)
    attempt = JobAttempt(ArtifactsStore(root or str(tmp_path / "store")), document, 1)
    return attempt, resolve_stage(spec, 0, tiny_layout(), None, 4)


def weights_of(model: CLIP) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})


def finished_student(stage: Stage, model: CLIP | None = None) -> FinishedStudent:
    """Return a stage's result: a model (by default a random one) and an evaluation."""
    return FinishedStudent(stage.layout, weights_of(model or tiny_model(layout=stage.layout)), EVALUATION)
