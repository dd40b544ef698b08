"""Entry point of the Ray jobs other than training.

    python -m tinyclip_workers.jobs export     --artifacts ROOT --export ID     --attempt N     (tc-export-<id>-a<attempt>)
    python -m tinyclip_workers.jobs evaluation --artifacts ROOT --evaluation ID --attempt N     (tc-evaluation-<id>-a<attempt>)
    python -m tinyclip_workers.jobs index      --artifacts ROOT --index NAME    --job JOB       (tc-index-<name>-<job>)
    python -m tinyclip_workers.jobs dataset    --artifacts ROOT --dataset NAME  --version V --attempt N
                                                                                      (tc-dataset-<name>-v<version>-a<attempt>)
    python -m tinyclip_workers.jobs reinforcement --artifacts ROOT --dataset NAME --version V --reinforcement ID --attempt N
                                                                                    (tc-reinforcement-<id>-a<attempt>)
    python -m tinyclip_workers.jobs costs      --artifacts ROOT --search ID     --attempt N     (tc-costs-<id>-a<attempt>)
    python -m tinyclip_workers.jobs finalists  --artifacts ROOT --search ID     --attempt N     (tc-finalists-<id>-a<attempt>)

Each job reads its request from the artifacts store and writes events there. A kind imports its package only when it runs.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

from tinyclip.artifacts.paths import (
    dataset_events,
    evaluation_events,
    export_events,
    index_job_events,
    reinforcement_events,
    reinforcement_folder,
    search_costs_events,
    search_finalists_events,
)
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.runtime.ray_job import run


def main(argv: list[str] | None = None) -> int:
    """Return 0 if the job is done or no longer wanted, 1 if it failed; a `<kind>.failed` event then holds the reason."""
    arguments = _parser().parse_args(argv)
    return KINDS[arguments.kind](open_own_store(arguments.artifacts), arguments)


def _run_export(store: ArtifactsStore, arguments: argparse.Namespace) -> int:
    from tinyclip_workers.exporting.job import export

    id, attempt = arguments.export, arguments.attempt
    return run(store, export_events(id, attempt), attempt, "export", partial(export, store, id, attempt))


def _run_evaluation(store: ArtifactsStore, arguments: argparse.Namespace) -> int:
    from tinyclip_workers.evaluation.job import evaluate

    id, attempt = arguments.evaluation, arguments.attempt
    return run(store, evaluation_events(id, attempt), attempt, "evaluation", partial(evaluate, store, id))


def _run_costs(store: ArtifactsStore, arguments: argparse.Namespace) -> int:
    from tinyclip_workers.costs.job import fit_costs

    id, attempt = arguments.search, arguments.attempt
    return run(store, search_costs_events(id, attempt), attempt, "costs", partial(fit_costs, store, id, attempt))


def _run_finalists(store: ArtifactsStore, arguments: argparse.Namespace) -> int:
    from tinyclip_workers.finalists.job import measure_finalists

    id, attempt = arguments.search, arguments.attempt
    work = partial(measure_finalists, store, id, attempt)
    return run(store, search_finalists_events(id, attempt), attempt, "finalists", work)


def _run_index(store: ArtifactsStore, arguments: argparse.Namespace) -> int:
    from tinyclip_workers.retrieval.job import build_or_update

    name, job = arguments.index, arguments.job
    return run(store, index_job_events(name, job), 1, "index", partial(build_or_update, store, name, job))


def _run_dataset(store: ArtifactsStore, arguments: argparse.Namespace) -> int:
    from tinyclip_workers.datasets.job import register

    name, version, attempt = arguments.dataset, arguments.version, arguments.attempt
    folder = dataset_events(name, version, attempt)
    return run(store, folder, attempt, "dataset", partial(register, store, name, version, attempt))


def _run_reinforcement(store: ArtifactsStore, arguments: argparse.Namespace) -> int:
    from tinyclip_workers.reinforcing.job import reinforce

    dataset, version, id, attempt = arguments.dataset, arguments.version, arguments.reinforcement, arguments.attempt
    events = reinforcement_events(reinforcement_folder(dataset, version, id), attempt)
    return run(store, events, attempt, "reinforcement", partial(reinforce, store, dataset, version, id, attempt))


KINDS: dict[str, Callable[[ArtifactsStore, argparse.Namespace], int]] = {
    "export": _run_export, "evaluation": _run_evaluation, "index": _run_index, "dataset": _run_dataset,
    "reinforcement": _run_reinforcement, "costs": _run_costs, "finalists": _run_finalists,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tinyclip_workers.jobs", description="Run one Ray job other than training.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, resource, help in (
        ("export", "export", "Export a model version."),
        ("evaluation", "evaluation", "Evaluate a model."),
        ("costs", "search", "Fit the cost models of a search."),
        ("finalists", "search", "Measure the finalists of a search."),
    ):
        command = kinds.add_parser(kind, help=help)
        command.add_argument("--artifacts", required=True)
        command.add_argument(f"--{resource}", required=True)
        command.add_argument("--attempt", required=True, type=int)
    index = kinds.add_parser("index", help="Build or update an index.")
    index.add_argument("--artifacts", required=True)
    index.add_argument("--index", required=True)
    index.add_argument("--job", required=True)
    dataset = kinds.add_parser("dataset", help="Register a version of a data set.")
    reinforcement = kinds.add_parser("reinforcement", help="Store teachers' embeddings of a data set.")
    reinforcement.add_argument("--reinforcement", required=True)
    for command in (dataset, reinforcement):
        for name in ("artifacts", "dataset"):
            command.add_argument(f"--{name}", required=True)
        for name in ("version", "attempt"):
            command.add_argument(f"--{name}", required=True, type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
