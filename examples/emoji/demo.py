"""The main flow of `make demo`: from a job spec to answered queries, on the emoji drawings beside this file.

It starts the embedded service in a temporary folder, registers the training pictures as a data set (dataset.yaml), submits
half.yaml, deploys the student, classifies three images of a style that the student has never seen, searches an index of this
style by text, and stops everything. With --keep (`make demo KEEP=1`) the service runs until Ctrl-C, for its console.
"""

import argparse
import json
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text
from session import ExampleFailed, call, console, run_with_service, shown
from thumbnails import thumbnail
from tinyclip import Client, Student
from tinyclip.schemas import DeploymentState, Hit, IndexState, LabelScore

HERE = Path(__file__).parent
DATASET, SPEC = HERE / "dataset.yaml", HERE / "half.yaml"
DATA = HERE / "data"
VAL_SHARD = DATA / "val-000000.tar.gz"

CONCEPTS = ("pizza", "sailboat", "elephant")
QUERIES = ("an emoji of a boat", "heart, love")
TEMPLATE = "an emoji of a {}"
HITS = 5
TIMEOUT_SECONDS = 120


@dataclass
class Drawing:
    """One image of the val style."""

    image: bytes
    metadata: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description="Train, serve and query a half-size CLIP on the emoji drawings.")
    parser.add_argument("--keep", action="store_true", help="keep the service running until Ctrl-C")
    return run_with_service("demo", run, keep=parser.parse_args().keep)


def run(url: str) -> None:
    """Run the demo against a running service."""
    drawings = read_drawings(VAL_SHARD)
    call(url, "datasets", "create", "emoji", "--file", DATASET)
    call(url, "jobs", "submit", SPEC, "--set", "data.train.shards=null", "--set", "data.train.dataset=emoji@1", "--watch")
    with Client(url) as client:
        job = next(client.jobs.list(name="emoji-half"))
        if job.model is None:
            raise ExampleFailed(f"{job.id} is {job.state} without a model")
        model = f"{job.model.name}@{job.model.version}"
        student = deploy(client, model)
        console.print("\n[bold]Three pictures in a style that it has never seen[/]")
        shown = [next(d for d in drawings.values() if d.metadata["class_name"] == name) for name in CONCEPTS]
        console.print(Columns([classified(drawing, student) for drawing in shown], width=36))
        console.print(f"  {repeated_query_ms(shown[0].image, student):.0f} ms for a picture among 98 labels, over HTTP")
        build_index(client, model)
        for query in QUERIES:
            console.print(f"\n[bold]Search:[/] {query}")
            show_hits(student.search("emoji", query, top_k=HITS).hits, drawings)


def deploy(client: Client, model: str) -> Student:
    console.print(f"\n[bold]Deploying {model}[/]")
    client.deployments.put("emoji", model)
    deployment = client.deployments.wait("emoji", timeout=TIMEOUT_SECONDS)
    if deployment.state is not DeploymentState.READY:
        raise ExampleFailed(f"the deployment is {deployment.state}: {deployment.message}")
    console.print(f"  answers at {deployment.endpoint}")
    student = client.deployments.open("emoji")
    report = student.health()["engine_report"]
    console.print(f"  engine {report['engine']}: {report['reason']}", highlight=False)
    return student


def build_index(client: Client, model: str) -> None:
    console.print(f"\n[bold]Building an index of {shown(VAL_SHARD)}[/]")
    client.indexes.put("emoji", model, str(VAL_SHARD))
    index = client.indexes.wait("emoji", timeout=TIMEOUT_SECONDS)
    if index.state is not IndexState.READY:
        raise ExampleFailed(f"the index is {index.state}: {index.message}")
    console.print(f"  {index.count} pictures")


def classified(drawing: Drawing, student: Student) -> Group:
    """Return the image, and the three most likely of the 98 sub-groups with the correct one marked."""
    labels = (DATA / "subgroups.txt").read_text().splitlines()
    scores = student.classify(drawing.image, labels, templates=[TEMPLATE], top_k=3)
    truth = drawing.metadata["subgroup_name"]
    name = Text(drawing.metadata["class_name"], "bold").append(f" ({truth})", "not bold dim")
    return Group(*thumbnail_of(drawing, 22), name, *(bar(score, truth) for score in scores))


def repeated_query_ms(image: bytes, student: Student, times: int = 20) -> float:
    """Return the median milliseconds of several queries whose labels are cached."""
    labels = (DATA / "subgroups.txt").read_text().splitlines()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        student.classify(image, labels, templates=[TEMPLATE], top_k=3)
        took.append(time.perf_counter() - began)
    return 1000 * median(took)


def bar(score: LabelScore, truth: str) -> Text:
    right = score.label == truth
    length = round(10 * score.score)
    line = Text(f"{score.score:4.0%} ", "green" if right else "", no_wrap=True, overflow="ellipsis")
    return line.append("█" * length + "·" * (10 - length)).append(f" {score.label}{' ✓' if right else ''}")


def show_hits(hits: Sequence[Hit], drawings: dict[str, Drawing]) -> None:
    """Print the best hits side by side, best first, as many as fit."""
    table = Table.grid(padding=(0, 2))
    cells = [
        Group(*thumbnail_of(drawings[hit.id], 18), Text(drawings[hit.id].metadata["class_name"]), Text(f"{hit.score:.3f}", "dim"))
        for hit in hits[: max(1, console.width // 20)]
    ]
    for _ in cells:
        table.add_column(width=18)
    table.add_row(*cells)
    console.print(table)


def thumbnail_of(drawing: Drawing, width: int) -> list[Text]:
    """Return the thumbnail if the terminal has colours, else nothing."""
    return [thumbnail(drawing.image, width)] if console.color_system in ("256", "truecolor") else []


def read_drawings(shard: Path) -> dict[str, Drawing]:
    """Return the shard's images by key."""
    files: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, kind = member.name.partition(".")
            content = tar.extractfile(member)
            if content is not None:
                files.setdefault(key, {})[kind] = content.read()
    return {key: Drawing(parts["png"], json.loads(parts["json"])) for key, parts in files.items()}


if __name__ == "__main__":
    sys.exit(main())
