"""`tinyclip-client datasets …`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tinyclip._client import Client
from tinyclip._resources import datasets as calls
from tinyclip._resources import reinforcements as reinforcing
from tinyclip.cli.display import datasets as display
from tinyclip.cli.display.console import messages, print_json
from tinyclip.cli.display.progress import progress_bar
from tinyclip.cli.problems import FAILED
from tinyclip.cli.session import AsJson, NoWait, PageSize, PageToken, Timeout, connect, run, send
from tinyclip.schemas import Dataset, DatasetState, ReinforcementState, SampleUse
from tinyclip.specfile import load_dataset, load_tasks, teacher_of

app = typer.Typer(help="Register data sets, and show what reading them found.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The data set.")]
Reference = Annotated[str, typer.Argument(metavar="DATASET", help="For example emoji@3, emoji@best or emoji (the latest).")]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    file: Annotated[Path | None, typer.Option(help="YAML: source, holdout, teacher, tasks; options replace its values.")] = None,
    shards: Annotated[list[str] | None, typer.Option(help="WebDataset shards: paths or URIs, with braces or globs.")] = None,
    image_key: Annotated[list[str] | None, typer.Option(help="An extension of images; by default jpg, png, webp, jpeg.")] = None,
    caption_key: Annotated[str | None, typer.Option(help="The captions: txt (the default), or json.FIELD.")] = None,
    distinct_key: Annotated[str | None, typer.Option(help="json.FIELD: no two pairs of a batch share its value.")] = None,
    captions: Annotated[str | None, typer.Option(help="A file of more captions: Parquet, or JSON lines.")] = None,
    holdout: Annotated[float | None, typer.Option(help="The share of pairs that training never sees.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Compare it with the pairs: ViT-B-32/laion2b_s34b_b79k, emoji@best, hf-hub:ORG/NAME.")
    ] = None,
    task: Annotated[Path | None, typer.Option(help="YAML of evaluation tasks, whose images are looked for.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the student's input; by default 224.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Set a value, as source.where.agreement.min=0.2.")] = None,
    no_wait: NoWait = False,
    timeout: Timeout = 24 * 3600.0,
    as_json: AsJson = False,
) -> None:
    """Register a data set: read its shards once, and report what is wrong with them."""
    given: dict[str, Any] = {
        "source.shards": shards and (shards[0] if len(shards) == 1 else shards), "source.image_key": image_key,
        "source.caption_key": caption_key, "source.distinct_key": distinct_key, "source.captions": captions, "holdout": holdout,
        "teacher": teacher and teacher_of(teacher), "tasks": task and load_tasks(task)[0], "image_size": image_size,
    }  # fmt: skip
    if file is None and not shards:
        raise typer.BadParameter("name the shards: give --shards or --file")
    document = load_dataset(file, {key: value for key, value in given.items() if value is not None}, overrides or [])
    with connect(context) as client:
        if no_wait:
            send(client, calls.put_document(name, document), display.show_dataset, as_json)
            return
        before = client.send(calls.put_document(name, document)).latest
        with progress_bar(f"data set {name}") as show:
            client.datasets.wait(name, timeout=timeout, on_progress=lambda dataset: show(dataset.progress))
        dataset, response = client.send_with_response(calls.get(name))
        if as_json:
            print_json(response.text)
        else:
            _show_registered(client, dataset, before)
        raise typer.Exit(0 if dataset.state is DatasetState.READY else FAILED)


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List data sets."""
    run(context, calls.page(page_size=page_size, page_token=page_token), display.show_datasets, as_json)


@app.command()
def get(context: typer.Context, dataset: Reference, as_json: AsJson = False) -> None:
    """Show the state of a data set, or with @ a version of it."""
    if "@" in dataset:
        run(context, calls.version(dataset), display.show_version, as_json)
    else:
        run(context, calls.get(dataset), display.show_dataset, as_json)


@app.command()
def report(context: typer.Context, dataset: Reference, as_json: AsJson = False) -> None:
    """Show what reading a version found: findings, captions, image sizes, and the teacher's agreement."""
    with connect(context) as client:
        found, response = client.send_with_response(calls.report(dataset))
        if as_json:
            print_json(response.text)
        else:
            display.show_report(client.send(calls.version(dataset)), found)


@app.command()
def samples(
    context: typer.Context,
    dataset: Reference,
    use: Annotated[SampleUse | None, typer.Option(help="Only samples of this use.")] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
    as_json: AsJson = False,
) -> None:
    """List the samples of a version, with their captions."""
    run(context, calls.samples_page(dataset, use=use, page_size=page_size, page_token=page_token), display.show_samples, as_json)


@app.command()
def reinforce(
    context: typer.Context,
    dataset: Reference,
    teacher: Annotated[
        list[str] | None, typer.Option(help="ViT-B-32/laion2b_s34b_b79k, emoji@best, hf-hub:ORG/NAME; may be repeated.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="YAML: teacher or teachers, augment, …; options replace its values.")] = None,
    augmentations: Annotated[int | None, typer.Option(min=1, help="Views of each image; by default 5.")] = None,
    captions: Annotated[str | None, typer.Option(help="all (the default), or first.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Type of the stored embeddings: bf16 (the default), fp32 or int8.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Set a value, as augment.horizontal_flip=0.5.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only estimate what it would cost and save.")] = False,
    no_wait: NoWait = False,
    timeout: Timeout = 7 * 24 * 3600.0,
    as_json: AsJson = False,
) -> None:
    """Store teachers' embeddings of a version, so that training needs no teacher."""
    if not teacher and file is None:
        raise typer.BadParameter("name the teacher: give --teacher or --file")
    named = [teacher_of(each) for each in teacher or []]
    given: dict[str, Any] = {
        "teacher": named[0] if len(named) == 1 else None, "teachers": named if len(named) > 1 else None,
        "augmentations": augmentations, "captions": captions, "dtype": dtype,
    }  # fmt: skip
    document = load_dataset(file, {key: value for key, value in given.items() if value is not None}, overrides or [])
    if dry_run:
        run(context, reinforcing.estimate_reinforcement(dataset, document), display.show_cost, as_json)
        return
    with connect(context) as client:
        started, response = client.send_with_response(reinforcing.reinforce_with(dataset, document))
        if not no_wait:
            version = f"{started.dataset}@{started.version}"
            with progress_bar(f"reinforcing {version}") as show:
                client.datasets.wait_for_reinforcement(
                    version, started.id, timeout=timeout, on_progress=lambda now: show(now.progress)
                )
            started, response = client.send_with_response(reinforcing.get_reinforcement(version, started.id))
        if as_json:
            print_json(response.text)
        else:
            display.show_reinforcement(started)
        raise typer.Exit(FAILED if started.state is ReinforcementState.FAILED else 0)


@app.command()
def reinforcements(
    context: typer.Context, dataset: Reference, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False
) -> None:
    """List the reinforcements of a version."""
    call = reinforcing.reinforcements_page(dataset, page_size=page_size, page_token=page_token)
    run(context, call, display.show_reinforcements, as_json)


@app.command()
def alias(
    context: typer.Context,
    name: Name,
    alias: Annotated[str, typer.Argument(help="For example best or production.")],
    version: Annotated[int | None, typer.Argument(min=1, help="The version to point it at.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a version, or remove it."""
    if remove == (version is not None):
        raise typer.BadParameter("give either a version or --remove")
    with connect(context) as client:
        if version is None:
            send(client, calls.remove_alias(name, alias), lambda _: None, as_json)
        else:
            send(client, calls.put_alias(name, alias, version), display.show_aliases, as_json)


@app.command()
def delete(
    context: typer.Context,
    dataset: Reference,
    reinforcement: Annotated[str | None, typer.Option(metavar="ID", help="Delete this reinforcement of the version.")] = None,
    as_json: AsJson = False,
) -> None:
    """Delete a data set, with @ a version of it, or a reinforcement. The shards are kept."""
    if reinforcement is not None:
        run(context, reinforcing.delete_reinforcement(dataset, reinforcement), display.show_reinforcement, as_json)
    elif "@" in dataset:
        run(context, calls.delete_version(dataset), lambda _: None, as_json)
    else:
        run(context, calls.delete(dataset), display.show_dataset, as_json)


def _show_registered(client: Client, dataset: Dataset, before: int | None) -> None:
    """Print the latest version, or why there is none; `before` was the latest one when the registration began."""
    if dataset.state is not DatasetState.READY or dataset.latest is None:
        display.show_dataset(dataset)
        if dataset.error is not None and dataset.error.pointer:
            messages().print(f"{dataset.error.pointer}: {dataset.error.value}", style="red", markup=False)
        return
    reference = f"{dataset.name}@{dataset.latest}"
    note = dataset.message if dataset.latest == before else ""
    display.show_registered(client.send(calls.version(reference)), client.send(calls.report(reference)), note)
