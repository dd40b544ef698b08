"""The path of every file and folder of the artifacts store, relative to its root."""

import re
from typing import NamedTuple

from tinyclip.schemas.exports import EXPORTS as VERSION_EXPORTS

MANIFEST = "manifest.json"
"""The file of a committed folder that is written last and lists the digests of the others."""

# Jobs

JOBS = "jobs"
_JOB_ID = re.compile(r"job_[a-z0-9]{16}")
_CHECKPOINT_FOLDER = re.compile(r"a\d+")
_CHECKPOINT_FILE = re.compile(r"(jobs/[^/]+/stages/(\d+)-[^/]+/a(\d+)/step-(\d+))/([^/]+)")


def is_job_folder(name: str) -> bool:
    """Return whether an entry of `JOBS` is a job's folder."""
    return _JOB_ID.fullmatch(name) is not None


def job_folder(job: str) -> str:
    return f"{JOBS}/{job}"


def job_spec(job: str) -> str:
    """A `JobDocument`."""
    return f"{job_folder(job)}/spec.json"


def job_control(job: str) -> str:
    """A `Control`."""
    return f"{job_folder(job)}/control.json"


def attempts_folder(job: str) -> str:
    return f"{job_folder(job)}/attempts"


def attempt_folder(job: str, attempt: int) -> str:
    return f"{attempts_folder(job)}/{attempt}"


def attempt_driver(job: str, attempt: int) -> str:
    """Created by the attempt's driver when it starts; a second driver of the same attempt finds it and exits."""
    return f"{attempt_folder(job, attempt)}/driver.json"


def attempt_outcome(job: str, attempt: int) -> str:
    """The reason why a worker group stopped before the end of its stage."""
    return f"{attempt_folder(job, attempt)}/outcome.json"


def group_stop(job: str, attempt: int, group: str) -> str:
    """Created by the driver to let an elastic worker group write a checkpoint and stop."""
    return f"{attempt_folder(job, attempt)}/groups/{group}.stop"


def attempt_events(job: str, attempt: int) -> str:
    return f"{attempt_folder(job, attempt)}/events"


def attempt_logs(job: str, attempt: int) -> str:
    return f"{attempt_folder(job, attempt)}/logs"


def attempt_ray_storage(job: str, attempt: int) -> str:
    """Ray Train's own files."""
    return f"{attempt_folder(job, attempt)}/ray"


def event_segment(folder: str, seq: int) -> str:
    """One segment of an events folder, of a training job or any other."""
    return f"{folder}/{seq:08d}.jsonl"


def stages_folder(job: str) -> str:
    return f"{job_folder(job)}/stages"


def stage_folder(job: str, index: int, name: str) -> str:
    return f"{stages_folder(job)}/{index}-{name}"


def stage_checkpoints(job: str, index: int, name: str, attempt: int) -> str:
    """The checkpoints that one attempt wrote; attempt 0 holds those adopted from other jobs."""
    return f"{stage_folder(job, index, name)}/a{attempt}"


def is_checkpoints_folder(name: str) -> bool:
    """Return whether an entry of a stage's folder holds the checkpoints of one attempt."""
    return _CHECKPOINT_FOLDER.fullmatch(name) is not None


def checkpoint(checkpoints: str, step: int) -> str:
    return f"{checkpoints}/step-{step}"


class CheckpointFile(NamedTuple):
    """The parts of the path of a checkpoint's file."""

    folder: str
    stage: int
    attempt: int
    step: int
    name: str


def parse_checkpoint_file(path: str) -> CheckpointFile | None:
    """Split the path of a file of a checkpoint; None for any other file."""
    match = _CHECKPOINT_FILE.fullmatch(path)
    if match is None:
        return None
    folder, stage, attempt, step, name = match.groups()
    return CheckpointFile(folder, int(stage), int(attempt), int(step), name)


def stage_student(job: str, index: int, name: str) -> str:
    """The finished student, a committed folder."""
    return f"{stage_folder(job, index, name)}/student"


def stage_picture(job: str, index: int, name: str) -> str:
    """A drawing of the layout that an automatic stage kept at its prune step."""
    return f"{stage_folder(job, index, name)}/layout.svg"


def stage_selection(job: str, index: int, name: str, setting: str) -> str:
    """The result of a stage's test for a setting that is `auto`: `lr`, `micro_batch` or `precision`. Created once."""
    return f"{stage_folder(job, index, name)}/{setting}.json"


# Models

MODELS = "models"
MODEL_DOCUMENT = "model.json"
"""The file that completes a version: a `ModelVersion`, written last."""
EXPORT_DOCUMENT = "export.json"
"""The file that completes an export: an `ExportDocument`, written last."""

IMPORTS = "imports"


def model_version(name: str, version: int) -> str:
    return f"{MODELS}/{name}/{version}"


def model_document(name: str, version: int) -> str:
    return f"{model_version(name, version)}/{MODEL_DOCUMENT}"


def exported_files(name: str, version: int, export: str) -> str:
    """The folder of an export's files, by its name (`export_name`)."""
    return f"{model_version(name, version)}/{VERSION_EXPORTS}/{export}"


def version_predictions(name: str, version: int, task: str) -> str:
    """The predictions of an evaluation at the end of training: a `TaskPredictions`, packed."""
    return f"{model_version(name, version)}/{_predictions(task)}"


def _predictions(task: str) -> str:
    return f"predictions/{task}.json.gz"


def import_marker(name: str) -> str:
    """`{"name", "version", "at"}` of an import in progress: what to remove if it never ends."""
    return f"{IMPORTS}/{name}"


# Exports and evaluations


def export_folder(id: str) -> str:
    return f"exports/{id}"


def export_request(id: str) -> str:
    """An `ExportRequest`."""
    return f"{export_folder(id)}/request.json"


def export_events(id: str, attempt: int) -> str:
    return f"{export_folder(id)}/attempts/{attempt}/events"


def evaluation_folder(id: str) -> str:
    return f"evaluations/{id}"


def evaluation_request(id: str) -> str:
    """An `EvaluationRequest`."""
    return f"{evaluation_folder(id)}/request.json"


def evaluation_results(id: str) -> str:
    return f"{evaluation_folder(id)}/results.json"


def evaluation_predictions(id: str, task: str) -> str:
    """The predictions of the evaluated model: a `TaskPredictions`, packed."""
    return f"{evaluation_folder(id)}/{_predictions(task)}"


def evaluation_events(id: str, attempt: int) -> str:
    return f"{evaluation_folder(id)}/attempts/{attempt}/events"


# Searches


def search_folder(id: str) -> str:
    return f"searches/{id}"


def search_costs_request(id: str) -> str:
    """A `CostsRequest`."""
    return f"{search_folder(id)}/costs-request.json"


def search_costs(id: str) -> str:
    """A `CostModel`."""
    return f"{search_folder(id)}/costs.json"


def search_costs_measured(id: str, number: int) -> str:
    """A `MeasuredLayout`."""
    return f"{search_folder(id)}/costs/measured/{number:04d}.json"


def search_costs_events(id: str, attempt: int) -> str:
    return f"{search_folder(id)}/costs/attempts/{attempt}/events"


def search_finalists_request(id: str) -> str:
    """A `FinalistsRequest`."""
    return f"{search_folder(id)}/finalists-request.json"


def search_finalists(id: str) -> str:
    """A `Finalists`."""
    return f"{search_folder(id)}/finalists.json"


def search_finalists_measured(id: str, trial: int, engine: str) -> str:
    """A `MeasuredFinalist`."""
    return f"{search_folder(id)}/finalists/measured/{trial:04d}-{engine}.json"


def search_finalists_events(id: str, attempt: int) -> str:
    return f"{search_folder(id)}/finalists/attempts/{attempt}/events"


# Indexes

INDEXES = "indexes"
SEGMENT_VECTORS, SEGMENT_ITEMS, SEGMENT_GRAPH = "vectors.npy", "items.sqlite", "hnsw.bin"
SEGMENT_SCALES, SEGMENT_BITS, SEGMENT_FACTORS, SEGMENT_CENTER = "scales.npy", "bits.npy", "factors.npy", "center.npy"
SEGMENT_CODES = {
    "float": (SEGMENT_VECTORS,),
    "int8": (SEGMENT_VECTORS, SEGMENT_SCALES),
    "binary": (SEGMENT_VECTORS, SEGMENT_SCALES, SEGMENT_BITS, SEGMENT_FACTORS, SEGMENT_CENTER),
}
"""The files of a segment's vectors, by the codes of its index."""
"""The files of a segment; not every segment has a graph."""


def index_folder(name: str) -> str:
    return f"{INDEXES}/{name}"


def index_request(name: str) -> str:
    """An `IndexRequest`."""
    return f"{index_folder(name)}/request.json"


def index_job_events(name: str, job: str) -> str:
    return f"{index_folder(name)}/jobs/{job}/events"


def index_updates(name: str) -> str:
    return f"{index_folder(name)}/updates"


def index_update(name: str, file: str) -> str:
    """An `IndexUpdate`."""
    return f"{index_updates(name)}/{file}"


def index_generations(name: str) -> str:
    return f"{index_folder(name)}/generations"


def index_generation(name: str, number: int) -> str:
    """The index after its change number `number`, created in one step."""
    return f"{index_generations(name)}/{number:09d}.json"


def index_segments(name: str) -> str:
    return f"{index_folder(name)}/segments"


def index_segment(name: str, id: str) -> str:
    return f"{index_segments(name)}/{id}"


def index_tombstones_folder(name: str) -> str:
    return f"{index_folder(name)}/dead"


def index_tombstones(name: str, id: str) -> str:
    """Tombstones: rows of a segment that were replaced or removed."""
    return f"{index_tombstones_folder(name)}/{id}.npy"


def index_builds(name: str) -> str:
    return f"{index_folder(name)}/builds"


def index_build_parts(name: str, build: int) -> str:
    """The parts that a build has encoded."""
    return f"{index_builds(name)}/{build}/parts"


def index_tables(name: str) -> str:
    return f"{index_folder(name)}/tables"


def index_table(name: str, id: str) -> str:
    """An empty file for a pair of tables of the index database: created before the tables, removed after them."""
    return f"{index_tables(name)}/{id}"


# Data sets

DATASETS = "datasets"
DATASET_DOCUMENT = "dataset.json"
"""The file that completes a version: a `DatasetVersion`, written last."""
REINFORCEMENT_DOCUMENT = "reinforcement.json"
"""The file that completes a reinforcement, written last."""


def dataset_folder(name: str) -> str:
    return f"{DATASETS}/{name}"


def dataset_request(name: str) -> str:
    """A `DatasetRequest`."""
    return f"{dataset_folder(name)}/request.json"


def dataset_events(name: str, version: int, attempt: int) -> str:
    return f"{dataset_folder(name)}/jobs/{version}-a{attempt}/events"


def dataset_version(name: str, version: int) -> str:
    return f"{dataset_folder(name)}/{version}"


def dataset_document(name: str, version: int) -> str:
    return f"{dataset_version(name, version)}/{DATASET_DOCUMENT}"


def dataset_report(version: str) -> str:
    """A `DatasetReport`; `version` is the folder of one."""
    return f"{version}/report.json"


def dataset_shards(version: str) -> str:
    """The shards: address, size, digest and count of samples, as Parquet."""
    return f"{version}/shards.parquet"


def dataset_blocks(version: str) -> str:
    """Stretches of shards that are read at once, as Parquet."""
    return f"{version}/blocks.parquet"


def dataset_samples(version: str, shard: int) -> str:
    """The samples of one shard, as Parquet."""
    return f"{version}/samples/{shard:06d}.parquet"


def dataset_values(version: str) -> str:
    """The hashed values of `distinct_key` of all pairs, in the order of the blocks: one number of 8 bytes each.

    There is no such file if no pair has a value.
    """
    return f"{version}/values.bin"


def dataset_lacking(version: str) -> str:
    """The languages that each pair has no caption in, as bits, in the order of the blocks: one number of 8 bytes each.

    There is no such file if every pair has captions in all languages.
    """
    return f"{version}/lacking.bin"


def dataset_findings_folder(version: str) -> str:
    """The source of the report; removed when the version is complete."""
    return f"{version}/findings"


def dataset_findings(version: str, shard: int) -> str:
    """The part of one shard in the report, as Parquet."""
    return f"{dataset_findings_folder(version)}/{shard:06d}.parquet"


def dataset_shard_summary(version: str, shard: int) -> str:
    """The result of scanning one shard of an anonymous version, written after its samples."""
    return f"{version}/scanned/{shard:06d}.json"


def job_dataset(job: str) -> str:
    """The anonymous version of the data set that a job with `shards` reads."""
    return f"{job_folder(job)}/dataset"


def job_tokenizer(job: str) -> str:
    """The tokenizer that a job has trained or read for its students; a committed folder."""
    return f"{job_folder(job)}/tokenizer"


def reinforcement_folder(dataset: str, version: int, id: str) -> str:
    return f"{dataset_version(dataset, version)}/reinforcements/{id}"


def reinforcement_request(folder: str) -> str:
    """A `ReinforcementRequest`."""
    return f"{folder}/request.json"


def reinforcement_document(folder: str) -> str:
    """A `ReinforcementDocument`, written last."""
    return f"{folder}/{REINFORCEMENT_DOCUMENT}"


def reinforcement_events(folder: str, attempt: int) -> str:
    return f"{folder}/attempts/{attempt}/events"


def reinforcement_images(folder: str, shard: int) -> str:
    """The views of the images of one shard, and the teachers' embeddings of them."""
    return f"{folder}/images/{shard:06d}.safetensors"


def reinforcement_texts(folder: str, shard: int) -> str:
    """The places of the embeddings of a shard's distinct texts, and those that no shard before it has."""
    return f"{folder}/texts/{shard:06d}.safetensors"


def reinforcement_work(folder: str) -> str:
    """Files of an incomplete reinforcement; removed before its document is written."""
    return f"{folder}/work"


# Deployments


def deployment_folder(name: str) -> str:
    """Files that the replicas of a deployment keep; removed with it."""
    return f"deployments/{name}"


def label_sets_folder(deployment: str) -> str:
    return f"{deployment_folder(deployment)}/label-sets"


def label_set_file(deployment: str, name: str) -> str:
    """A `LabelSet`."""
    return f"{label_sets_folder(deployment)}/{name}.json"


INSTALLATION = "installation.json"
"""The id of the installation that the store belongs to, as in its database."""

TOKEN_DIGESTS = "access/tokens.json"
"""A `TokenDigests`."""


def probe_file(id: str) -> str:
    """A file that checks whether the store can be written."""
    return f".probe/{id}"
