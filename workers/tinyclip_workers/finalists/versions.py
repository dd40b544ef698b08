"""A finalist's version in the registry: its weights, its images for int8, and what its job has held out."""

from dataclasses import dataclass
from functools import cached_property

from pydantic import ValidationError
from tinyclip.artifacts.paths import MODEL_DOCUMENT
from tinyclip.artifacts.searches import Finalist
from tinyclip.schemas import ModelVersion

from tinyclip_workers.engines.calibration import read_calibration
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.folder_files import FILE_SECONDS
from tinyclip_workers.model.files.folders import WEIGHTS_FILES, LoadedModel, ModelSource
from tinyclip_workers.model.files.sources import find_teacher, load_teacher
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.types import Pixels
from tinyclip_workers.versions.lineage import training_spec


@dataclass(frozen=True)
class FinalistVersion:
    """A finalist that was found."""

    finalist: Finalist
    pointer: str
    """Its place in the request."""
    source: ModelSource
    folder: str
    bytes: int
    """Of the weights file."""
    digest: str
    """Of the weights file."""
    holdout: float
    """Of the job that has trained it: tasks on held-out samples read the same ones."""

    @property
    def trial(self) -> int:
        return self.finalist.trial

    @property
    def name(self) -> str:
        return self.finalist.model.name

    @cached_property
    def calibration_images(self) -> Pixels | None:
        """The images that deployments calibrate int8 on: the job's training images, stored with the version."""
        return read_calibration(self.folder, self.source.layout.image_size)

    def load(self) -> LoadedModel:
        """Load the model in fp32 on the CPU. Raises TeacherError."""
        return load_teacher(self.finalist.model.source, self.pointer)


def find_version(finalist: Finalist, pointer: str) -> FinalistVersion:
    """Find a finalist's version; `pointer` is its place in the request. Raises TeacherError."""
    spec = finalist.model.source
    source = find_teacher(spec, pointer)
    folder, _, weights = source.weights().rpartition("/")
    try:
        content = open_own_store(folder, limit_s=FILE_SECONDS).read_bytes(MODEL_DOCUMENT)
        document = ModelVersion.model_validate_json(content)
        trained = training_spec(document)
    except (OSError, ValidationError) as error:
        raise TeacherError(pointer, spec.model, f"is not a registered version: {error}") from error
    file = next((file for file in document.files if file.path == weights and weights in WEIGHTS_FILES), None)
    if file is None:
        raise TeacherError(pointer, spec.model, f"is not a registered version: its {MODEL_DOCUMENT} does not name its weights")
    holdout = trained.data.train.holdout if trained is not None else 0.0
    return FinalistVersion(finalist, pointer, source, folder, file.bytes, file.sha256, holdout)
