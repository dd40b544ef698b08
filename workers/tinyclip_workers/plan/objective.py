"""Checks of objectives: their terms have the files and the teachers that they need."""

from collections.abc import Sequence

from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import Objective

from tinyclip_workers.model.architecture import has_logit_bias
from tinyclip_workers.model.files.folders import ModelSource
from tinyclip_workers.model.files.headers import shown_name
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.training.clusters import CENTROIDS, ClustersError, read_clusters_header

LARGE_WEIGHT = 100
"""Above it a weight was probably meant for the published form of a term, a mean over the embedding's numbers."""


def check_objectives(spec: JobSpec, teachers: Sequence[ModelSource | None], diagnostics: Diagnostics) -> None:
    """Check the spec's objective, if a stage uses it, and those of stages. A teacher is None if it is unusable."""
    teacher = teachers[0] if teachers else None
    objectives = {f"/stages/{i}/objective": stage.objective for i, stage in enumerate(spec.stages) if stage.objective is not None}
    if len(objectives) < len(spec.stages):
        objectives = {"/objective": spec.objective, **objectives}
    for pointer, objective in objectives.items():
        _check_clusters(objective, pointer, teacher, diagnostics)
        found = [source.layout for source in teachers if source is not None]
        if objective.sigmoid_affinity > 0 and len(found) == len(teachers) and not any(map(has_logit_bias, found)):
            message = "needs a teacher that was trained with the sigmoid loss, as SigLIP; use affinity for others"
            diagnostics.error(f"{pointer}/sigmoid_affinity", objective.sigmoid_affinity, message)
        if objective.feature_mimicry > LARGE_WEIGHT:
            diagnostics.warn(
                f"{pointer}/feature_mimicry is {objective.feature_mimicry:g}: weight 1 is what is published as 2000; "
                f"did you mean {objective.feature_mimicry / 2000:g}?"
            )


def check_ensemble(spec: JobSpec, teachers: Sequence[ModelSource | None], diagnostics: Diagnostics) -> None:
    """Check that several teachers are used."""
    if len(teachers) > 1 and not any((stage.objective or spec.objective).uses_every_teacher() for stage in spec.stages):
        diagnostics.warn("only affinity uses several teachers, and no stage has it: the first teacher is used alone")


def _check_clusters(objective: Objective, pointer: str, teacher: ModelSource | None, diagnostics: Diagnostics) -> None:
    file, pointer = objective.clusters, f"{pointer}/clusters"
    if objective.cluster_instance == 0:
        if file is not None:
            diagnostics.warn(f"{pointer} is not used: cluster_instance has weight 0")
        return
    if file is None:
        message = "is missing; name the file that python -m tinyclip_workers.training.clusters SPEC OUT writes"
        diagnostics.error(pointer, None, message)
        return
    try:
        header = read_clusters_header(file)
    except ClustersError as error:
        diagnostics.error(pointer, file, str(error))
        return
    if teacher is None:
        return
    size, needed = header.shapes[CENTROIDS][1], teacher.layout.embed_dim
    if size != needed:
        message = f"has clusters of embeddings of {size}, the teacher's have {needed}; make it with this teacher"
        diagnostics.error(pointer, file, message)
    elif header.metadata.get("teacher", teacher.name) != teacher.name:
        made_with = shown_name(header.metadata["teacher"])
        diagnostics.warn(f"{pointer} was made with the teacher {made_with}, the spec has {teacher.name}")
