"""`tinyclip-client models …`."""

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from tinyclip._resources import models as calls
from tinyclip.cli import _evaluations, _exports
from tinyclip.cli._numbers import count, number
from tinyclip.cli._session import (
    AsJson,
    PageSize,
    PageToken,
    answer,
    connect,
    console,
    messages,
    more,
    print_json,
    print_table,
    run,
    table,
)
from tinyclip.cli._summary import comparison_tables
from tinyclip.cli._uploads import upload_bar
from tinyclip.schemas import Comparison, Model, ModelVersion, Page

app = typer.Typer(help="Look at the registry, pull models from it and bring models to it.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(metavar="MODEL", help="As emoji@3, emoji@best or emoji (the latest).")]


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List models."""
    run(context, calls.page(page_size=page_size, page_token=page_token), _show_models, as_json)


@app.command()
def get(context: typer.Context, model: Reference, as_json: AsJson = False) -> None:
    """Show one version of a model."""
    run(context, calls.version(model), _show_version, as_json)


@app.command()
def compare(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="As emoji@1 emoji@best.")],
    as_json: AsJson = False,
) -> None:
    """Show models side by side, with their teacher's numbers."""

    def show(comparison: Comparison) -> None:
        out = console()
        for made in comparison_tables(out, comparison):
            print_table(out, made)

    run(context, calls.compare(models), show, as_json)


app.command()(_evaluations.evaluate)
app.command()(_exports.export)
app.command()(_exports.exports)


@app.command()
def pull(
    context: typer.Context,
    model: Reference,
    dest: Annotated[Path | None, typer.Argument(metavar="DIR", help="Where to put it; by default ./NAME-VERSION.")] = None,
    export: Annotated[str | None, typer.Option(help="An export of it instead, as onnx or onnx-int8.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a version's directory: it opens in open_clip as local-dir:DIR."""
    with connect(context) as client:
        found, response = client.send_with_response(calls.version(model))
        named = "-".join([found.name, str(found.version), *([export] if export else [])])
        where = client.models.pull(f"{found.name}@{found.version}", dest or Path(named), export=export)
        if as_json:
            print_json(response.text)
            return
        what = f"{found.name}@{found.version}" + (f" as {export}" if export else "")
        console().print(f"{what} is in {where}", markup=False)


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .pt or .safetensors file or an open_clip directory; or s3://….")],
    preset: Annotated[str | None, typer.Option(help="The architecture, as TinyCLIP-ViT-40M-32-Text-19M or ViT-B-32.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; by default the preset's or the file's.")] = None,
    alias: Annotated[str | None, typer.Option(help="Let this alias name the new version.")] = None,
    quick_gelu: Annotated[
        bool | None, typer.Option("--quick-gelu/--gelu", help="The activation, where the file does not say it.")
    ] = None,
    origin: Annotated[str | None, typer.Option(help="The open_clip weights it goes back to, as ViT-B-32@openai.")] = None,
    head_width: Annotated[int | None, typer.Option(min=1, help="Width of a head, where no preset says it; 64.")] = None,
    text_head_width: Annotated[int | None, typer.Option(min=1, help="The same for texts.")] = None,
    on_server: Annotated[bool, typer.Option("--on-server", help="FILE is a path of the server's machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a version of a model from elsewhere: an official TinyCLIP checkpoint, an open_clip file or directory."""
    said: Said = {
        "name": name, "alias": alias, "preset": preset, "quick_gelu": quick_gelu, "origin": origin, "head_width": head_width,
        "text_head_width": text_head_width,
    }
    with connect(context) as client:
        if on_server or "://" in file:
            answer(client, calls.import_source(file, **said), _show_version, as_json)
            return
        with upload_bar(Path(file).name) as on_progress:
            value, response = client.send_with_response(calls.import_file(file, **said, on_progress=on_progress))
        if as_json:
            print_json(response.text)
            return
        for warning in value.lineage.get("import", {}).get("warnings", []):
            messages().print(f"note: {warning}", markup=False)
        _show_version(value)


class Said(TypedDict):
    """What the file does not say of itself."""

    name: str | None
    alias: str | None
    preset: str | None
    quick_gelu: bool | None
    origin: str | None
    head_width: int | None
    text_head_width: int | None


@app.command()
def alias(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    alias: Annotated[str, typer.Argument(help="As best or production.")],
    version: Annotated[int | None, typer.Argument(min=1, help="The version it shall name.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let an alias name a version, or take it away."""
    if remove == (version is not None):
        raise typer.BadParameter("give either a version or --remove")
    with connect(context) as client:
        if version is None:
            answer(client, calls.remove_alias(name, alias), lambda _: None, as_json)
        else:
            answer(client, calls.put_alias(name, alias, version), _show_model, as_json)


def _show_models(page: Page[Model]) -> None:
    out = console()
    made = table(out, "name", "latest", "versions", "aliases", "created", right=("latest", "versions"))
    for model in page.items:
        aliases = ", ".join(f"{alias}={version}" for alias, version in model.aliases.items())
        created = model.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        made.add_row(model.name, str(model.latest), str(len(model.versions)), aliases, created)
    print_table(out, made)
    more(out, page.next_page_token)


def _show_model(model: Model) -> None:
    aliases = ", ".join(f"{alias} is {model.name}@{version}" for alias, version in model.aliases.items())
    console().print(f"{model.name}: {aliases or 'no aliases'}", markup=False)


def _show_version(version: ModelVersion) -> None:
    out = console()
    made = table(out, f"{version.name}@{version.version}", "")
    rows = {
        "aliases": ", ".join(version.aliases),
        "image params": count(version.params.image),
        "text params (without embedding)": count(version.params.text_without_embedding),
        "MACs": count(version.macs),
        "images": f"{version.image_size} px",
        "texts": f"{version.context_length} tokens",
        "embeddings": f"{version.embed_dim} numbers",
        "teacher": version.teacher or "",
        "job": version.job or "",
        "files": ", ".join(file.path for file in version.files),
    }
    for name, value in rows.items():
        if value:
            made.add_row(name, value)
    for task, scores in version.evaluation.items():
        numbers = {metric: value for metric, value in scores.student.items() if isinstance(value, int | float)}
        shown = ", ".join(f"{metric} {number(value)}" for metric, value in numbers.items())
        made.add_row(task, shown)
    print_table(out, made)
