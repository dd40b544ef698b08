"""`tinyclip-client classify`, `embed` and `search`: queries to a deployed student."""

import contextlib
import re
import webbrowser
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tinyclip._client import Client
from tinyclip._resources import student as calls
from tinyclip._resources.student import EmbeddedImages, Vectors
from tinyclip.cli.display.console import console, messages, new_table, print_table
from tinyclip.cli.display.hits import show_hits, show_whole_hits
from tinyclip.cli.display.hits_page import write_page
from tinyclip.cli.display.numbers import MISSING
from tinyclip.cli.session import AsJson, connect, json_object, send
from tinyclip.errors import InputError, InvalidRequest, NotFound
from tinyclip.schemas import Hit, ZeroShotResponse

Deployment = Annotated[str, typer.Option("--deployment", "-d", metavar="NAME", help="The deployment to query.")]
TopK = Annotated[int, typer.Option(min=1, help="How many to show.")]

_SHOWN_NUMBERS = 6
MOST_PICTURES = 200
"""Pictures of one page."""


class OnError(StrEnum):
    FAIL = "fail"
    SKIP = "skip"


def classify(
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files or http(s) URLs.")],
    deployment: Deployment,
    labels: Annotated[str | None, typer.Option(metavar="A,B,C", help="The possible labels; @FILE has one per line.")] = None,
    label_set: Annotated[str | None, typer.Option(metavar="NAME", help="A registered label set.")] = None,
    template: Annotated[list[str] | None, typer.Option(help="For example 'a photo of a {}.'; several are averaged.")] = None,
    top_k: TopK = 5,
    on_error: Annotated[OnError, typer.Option(help="What to do with an invalid image.")] = OnError.FAIL,
    as_json: AsJson = False,
) -> None:
    """Classify images: print the likeliest labels of each."""
    if (labels is None) == (label_set is None):
        raise typer.BadParameter("give either --labels or --label-set")
    label_list = None if labels is None else read_labels(labels)
    with connect(context) as client, _image_errors(images):
        call = calls.zero_shot(
            client.deployments.open(deployment), images, label_list,
            label_set=label_set, templates=template, top_k=top_k, on_error=on_error.value,
        )  # fmt: skip
        send(client, call, lambda response: _show_labels(images, response), as_json)


def embed(
    context: typer.Context,
    deployment: Deployment,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts to embed.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="An image to embed (file or URL); may be repeated.")] = None,
    on_error: Annotated[OnError, typer.Option(help="What to do with an invalid image.")] = OnError.FAIL,
    dimensions: Annotated[int | None, typer.Option(min=1, help="A size that the model was trained for; all numbers.")] = None,
    as_json: AsJson = False,
) -> None:
    """Embed texts or images; --json prints whole embeddings."""
    if bool(texts) == bool(image):
        raise typer.BadParameter("give either texts or --image")
    if texts and on_error is OnError.SKIP:
        raise typer.BadParameter("--on-error skip is for images; an invalid text always fails")
    with connect(context) as client, _image_errors(image or []):
        student = client.deployments.open(deployment)
        if on_error is OnError.SKIP:
            skipping = calls.embed_valid_images(student, image or [], dimensions=dimensions)
            send(client, skipping, lambda found: _show_embedded(image or [], found), as_json)
            return
        if texts:
            call = calls.embed_texts(student, texts, dimensions=dimensions)
        else:
            call = calls.embed_images(student, image or [], dimensions=dimensions)
        send(client, call, lambda vectors: _show_vectors(texts or image or [], vectors), as_json)


def search(
    context: typer.Context,
    deployment: Deployment,
    index: Annotated[str, typer.Option("--index", "-i", metavar="NAME", help="The index to search.")],
    text: Annotated[str | None, typer.Argument(help="The text to search for.")] = None,
    image: Annotated[str | None, typer.Option(help="An image to search for (file or URL).")] = None,
    like: Annotated[str | None, typer.Option(metavar="ID", help="An item of the index, to find others like it.")] = None,
    top_k: TopK = 10,
    filter: Annotated[
        str | None, typer.Option(metavar="JSON", help='On metadata, as \'{"year": {"gte": 2000}, "camera.make": "Leica"}\'.')
    ] = None,
    compatible: Annotated[bool, typer.Option("--compatible", help="Also an index of the model's teacher or student.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Print all metadata of each item.")] = False,
    open: Annotated[bool, typer.Option("--open", help="Show the items' pictures in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search an index for the items nearest to a text, an image or an item."""
    if [text, image, like].count(None) != 2:
        raise typer.BadParameter("give one of a text, --image and --like")
    conditions = None if filter is None else json_object("--filter", filter)
    with connect(context) as client, _image_errors([image] if image else []):
        student = client.deployments.open(deployment)
        call = calls.search(
            student, index, text, image=image, item=like, top_k=top_k, filter=conditions, compatible=compatible
        )
        found = send(client, call, show_whole_hits if long else show_hits, as_json)
        if open:
            _open_page(client, index, text or image or f"like {like}", found.hits, messages() if as_json else console())


def _open_page(client: Client, index: str, query: str, hits: Sequence[Hit], out: Console) -> None:
    """Write a page of the hits' pictures, print its path and open it in the browser."""
    pictures: dict[str, bytes | str] = {}
    for hit in hits[:MOST_PICTURES]:
        try:
            pictures[hit.id] = client.indexes.thumbnail(index, hit.id)
        except NotFound as error:
            pictures[hit.id] = error.problem.detail or error.problem.title
    page = write_page(f"{index}: {query}", hits, pictures)
    out.print(str(page), markup=False)
    if not webbrowser.open(page.as_uri()):
        messages().print("no browser was found; open the page yourself", markup=False)


@contextlib.contextmanager
def _image_errors(images: Sequence[str]) -> Iterator[None]:
    """Replace errors about an image's bytes by errors that name its file."""
    try:
        yield
    except InvalidRequest as refused:
        for error in refused.problem.errors:
            match = re.fullmatch(r"/(?:images?|input|inputs)(?:/(\d+))?", error.pointer)
            if match and int(match[1] or 0) < len(images):
                raise InputError(f"image {images[int(match[1] or 0)]}", error.message) from refused
        raise


def read_labels(given: str) -> list[str]:
    """Return the labels of a comma-separated list or of `@FILE`. Raises `InputError`."""
    if not given.startswith("@"):
        return [label.strip() for label in given.split(",") if label.strip()]
    try:
        lines = Path(given[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--labels {given}", f"{error}; name a text file with one label per line") from error
    return [line.strip() for line in lines if line.strip()]


def _show_labels(images: Sequence[str], response: ZeroShotResponse) -> None:
    out = console()
    table = new_table(out, "image", "label", "score", right=("score",))
    errors = iter(response.errors)
    for image, scores in zip(images, response.results, strict=True):
        if scores is None:
            table.add_row(image, next(errors).message, MISSING)
        for rank, score in enumerate(scores or []):
            table.add_row("" if rank else image, score.label, f"{score.score:.3f}")
    print_table(out, table)


def _show_vectors(inputs: Sequence[str], vectors: Vectors) -> None:
    for given, vector in zip(inputs, vectors, strict=True):
        first = " ".join(f"{value:+.4f}" for value in vector[:_SHOWN_NUMBERS])
        rest = f" … ({len(vector)} numbers; --json prints all)" if len(vector) > _SHOWN_NUMBERS else ""
        console().print(f"{given}: {first}{rest}", markup=False)


def _show_embedded(images: Sequence[str], found: EmbeddedImages) -> None:
    errors = iter(found.errors)
    for image, vector in zip(images, found.vectors, strict=True):
        if vector is None:
            console().print(f"{image}: skipped, {next(errors).message}", markup=False)
        else:
            _show_vectors([image], [vector])


