"""`tinyclip-client classify`, `embed` and `search`: questions to a deployed student."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyclip._resources import student as calls
from tinyclip._resources.student import EmbeddedImages, Vectors
from tinyclip.cli._session import AsJson, answer, connect, console, json_object, print_table, table
from tinyclip.errors import InputError, InvalidRequest
from tinyclip.schemas import SearchResponse, ZeroShotResponse

Deployment = Annotated[str, typer.Option("--deployment", "-d", metavar="NAME", help="The deployment to ask.")]
TopK = Annotated[int, typer.Option(min=1, help="How many to show.")]

_SHOWN_NUMBERS = 6


class OnError(StrEnum):
    FAIL = "fail"
    SKIP = "skip"


def classify(
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files or http(s) URLs.")],
    deployment: Deployment,
    labels: Annotated[str | None, typer.Option(metavar="A,B,C", help="What they may show; @FILE has one label a line.")] = None,
    label_set: Annotated[str | None, typer.Option(metavar="NAME", help="A registered set of labels instead.")] = None,
    template: Annotated[list[str] | None, typer.Option(help="As 'a photo of a {}.'; several are averaged.")] = None,
    top_k: TopK = 5,
    on_error: Annotated[OnError, typer.Option(help="Whether a bad image fails all, or is skipped.")] = OnError.FAIL,
    as_json: AsJson = False,
) -> None:
    """Say which of the labels each image shows."""
    if (labels is None) == (label_set is None):
        raise typer.BadParameter("give either --labels or --label-set")
    given = None if labels is None else read_labels(labels)
    with connect(context) as client, _images_named(images):
        endpoint = client.deployments.open(deployment).endpoint
        call = calls.zero_shot(endpoint, images, given, template, top_k, on_error.value, label_set)
        answer(client, call, lambda found: _show_labels(images, found), as_json)


def embed(
    context: typer.Context,
    deployment: Deployment,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts to embed.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="A file or URL to embed instead; may be repeated.")] = None,
    on_error: Annotated[OnError, typer.Option(help="Whether a bad image fails all, or is skipped.")] = OnError.FAIL,
    as_json: AsJson = False,
) -> None:
    """Embed texts or images. --json has all the numbers."""
    if bool(texts) == bool(image):
        raise typer.BadParameter("give either texts or --image")
    if texts and on_error is OnError.SKIP:
        raise typer.BadParameter("--on-error skip is for images; a bad text always fails")
    with connect(context) as client, _images_named(image or []):
        endpoint = client.deployments.open(deployment).endpoint
        if on_error is OnError.SKIP:
            skipping = calls.embed_images(endpoint, image or [], on_error="skip")
            answer(client, skipping, lambda found: _show_embedded(image or [], found), as_json)
            return
        call = calls.embed_texts(endpoint, texts) if texts else calls.embed_images(endpoint, image or [])
        answer(client, call, lambda vectors: _show_vectors(texts or image or [], vectors), as_json)


def search(
    context: typer.Context,
    deployment: Deployment,
    index: Annotated[str, typer.Option("--index", "-i", metavar="NAME", help="The index to search.")],
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    image: Annotated[str | None, typer.Option(help="A file or URL to look for instead.")] = None,
    top_k: TopK = 10,
    filter: Annotated[
        str | None, typer.Option(metavar="JSON", help='As \'{"year": {"gte": 2000}, "camera.make": "Leica"}\'.')
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the items of an index that are nearest to a text or to an image."""
    if (text is None) == (image is None):
        raise typer.BadParameter("give either a text or --image")
    conditions = None if filter is None else json_object("--filter", filter)
    with connect(context) as client, _images_named([image] if image else []):
        endpoint = client.deployments.open(deployment).endpoint
        answer(client, calls.search(endpoint, index, text, image, top_k, conditions), _show_hits, as_json)


@contextlib.contextmanager
def _images_named(images: Sequence[str]) -> Iterator[None]:
    """A complaint about an image's bytes names the file that they came from."""
    try:
        yield
    except InvalidRequest as refused:
        for error in refused.problem.errors:
            place = re.fullmatch(r"/(?:images?|input|inputs)(?:/(\d+))?", error.pointer)
            if place and int(place[1] or 0) < len(images):
                raise InputError(f"image {images[int(place[1] or 0)]}", error.message) from refused
        raise


def read_labels(given: str) -> list[str]:
    """Of a comma-separated list or of a file. Raises InputError."""
    if not given.startswith("@"):
        return [label.strip() for label in given.split(",") if label.strip()]
    try:
        lines = Path(given[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"--labels {given}", f"{failure}; name a text file with one label a line") from failure
    return [line.strip() for line in lines if line.strip()]


def _show_labels(images: Sequence[str], found: ZeroShotResponse) -> None:
    out = console()
    made = table(out, "image", "label", "score", right=("score",))
    why = iter(found.errors)
    for image, scores in zip(images, found.results, strict=True):
        if scores is None:
            made.add_row(image, next(why).message, "–")
        for place, score in enumerate(scores or []):
            made.add_row("" if place else image, score.label, f"{score.score:.3f}")
    print_table(out, made)


def _show_vectors(inputs: Sequence[str], vectors: Vectors) -> None:
    for given, vector in zip(inputs, vectors, strict=True):
        first = " ".join(f"{value:+.4f}" for value in vector[:_SHOWN_NUMBERS])
        rest = f" … ({len(vector)} numbers; --json prints all)" if len(vector) > _SHOWN_NUMBERS else ""
        console().print(f"{given}: {first}{rest}", markup=False)


def _show_embedded(images: Sequence[str], found: EmbeddedImages) -> None:
    why = iter(found.errors)
    for image, vector in zip(images, found.vectors, strict=True):
        if vector is None:
            console().print(f"{image}: skipped, {next(why).message}", markup=False)
        else:
            _show_vectors([image], [vector])


def _show_hits(found: SearchResponse) -> None:
    out = console()
    made = table(out, "#", "score", "id", "metadata", right=("#", "score"))
    for place, hit in enumerate(found.hits, start=1):
        made.add_row(str(place), f"{hit.score:.3f}", hit.id, _about(hit.metadata))
    print_table(out, made)


def _about(metadata: dict[str, Any]) -> str:
    """Metadata in a line, long values cut."""
    texts = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}
    return ", ".join(f"{key}: {text if len(text) <= 60 else text[:59] + '…'}" for key, text in texts.items())
