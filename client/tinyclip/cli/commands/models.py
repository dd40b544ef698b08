"""`tinyclip-client models …`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from tinyclip._http.uploads import WEIGHTS
from tinyclip._resources import models as calls
from tinyclip.cli.commands import evaluations, exports
from tinyclip.cli.display.console import console, messages, new_table, print_json, print_next_page, print_table, short_time
from tinyclip.cli.display.numbers import MISSING, count, number, with_embedding
from tinyclip.cli.display.progress import upload_progress
from tinyclip.cli.display.summary import TEXT_PARAMS, comparison_tables
from tinyclip.cli.session import AsJson, PageSize, PageToken, connect, run, send
from tinyclip.schemas import Comparison, Model, ModelVersion, Page, Params

app = typer.Typer(help="List, compare, evaluate, import, export and download models.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(metavar="MODEL", help="For example emoji@3, emoji@best or emoji (the latest).")]


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List models."""
    run(context, calls.page(page_size=page_size, page_token=page_token), _show_models, as_json)


@app.command()
def get(context: typer.Context, model: Reference, as_json: AsJson = False) -> None:
    """Show a version of a model."""
    run(context, calls.version(model), _show_version, as_json)


@app.command()
def compare(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="For example emoji@1 emoji@best.")],
    as_json: AsJson = False,
) -> None:
    """Compare models with each other and with their teachers."""

    def show(comparison: Comparison) -> None:
        out = console()
        for table in comparison_tables(out, comparison):
            print_table(out, table)

    run(context, calls.compare(models), show, as_json)


app.command()(evaluations.evaluate)
app.command()(exports.export)
app.command()(exports.exports)


@app.command()
def pull(
    context: typer.Context,
    model: Reference,
    dest: Annotated[Path | None, typer.Argument(metavar="DIR", help="The new directory; by default ./NAME-VERSION.")] = None,
    export: Annotated[str | None, typer.Option(help="Download this export of it, as onnx or onnx-int8.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a version's directory, which open_clip opens as local-dir:DIR."""
    with connect(context) as client:
        version, response = client.send_with_response(calls.version(model))
        default = Path("-".join([version.name, str(version.version), *([export] if export else [])]))
        reference = f"{version.name}@{version.version}"
        folder = client.models.pull(reference, dest or default, export=export)
        if as_json:
            print_json(response.text)
            return
        console().print(f"{reference}{f' as {export}' if export else ''} is in {folder}", markup=False)


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .pt or .safetensors file or an open_clip directory; or s3://….")],
    preset: Annotated[str | None, typer.Option(help="The architecture, as TinyCLIP-ViT-40M-32-Text-19M or ViT-B-32.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; by default the preset's or the file's.")] = None,
    alias: Annotated[str | None, typer.Option(help="Point this alias at the new version.")] = None,
    quick_gelu: Annotated[
        bool | None, typer.Option("--quick-gelu/--gelu", help="The activation, if the file does not define it.")
    ] = None,
    origin: Annotated[str | None, typer.Option(help="The open_clip weights it derives from, as ViT-B-32@openai.")] = None,
    head_width: Annotated[int | None, typer.Option(min=1, help="Width of an attention head without a preset; 64.")] = None,
    text_head_width: Annotated[int | None, typer.Option(min=1, help="The same for the text tower.")] = None,
    on_server: Annotated[bool, typer.Option("--on-server", help="FILE is a path on the server.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import a model as a new version: an official TinyCLIP checkpoint, an open_clip file or directory."""
    options: Options = {
        "name": name, "alias": alias, "preset": preset, "quick_gelu": quick_gelu, "origin": origin, "head_width": head_width,
        "text_head_width": text_head_width,
    }
    with connect(context) as client:
        if on_server or "://" in file:
            send(client, calls.import_source(file, **options), _show_version, as_json)
            return
        with upload_progress(Path(file).name) as on_progress:
            version, response = client.send_with_response(calls.import_file(file, **options, on_progress=on_progress))
        if as_json:
            print_json(response.text)
            return
        for warning in version.lineage.get("import", {}).get("warnings", []):
            messages().print(f"note: {warning}", markup=False)
        _show_version(version)


class Options(TypedDict):
    """Properties that the imported file may not define."""

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
            send(client, calls.put_alias(name, alias, version), _show_model, as_json)


def _show_models(page: Page[Model]) -> None:
    out = console()
    table = new_table(out, "name", "latest", "params", "versions", "aliases", "created", right=("latest", "versions"))
    for model in page.items:
        aliases = ", ".join(f"{alias}={version}" for alias, version in model.aliases.items())
        created = short_time(out, model.created_at)
        params = _params(model.params) if model.params is not None else MISSING
        table.add_row(model.name, str(model.latest), params, str(len(model.versions)), aliases, created)
    print_table(out, table)
    print_next_page(out, page.next_page_token)


def _show_model(model: Model) -> None:
    aliases = ", ".join(f"{alias} is {model.name}@{version}" for alias, version in model.aliases.items())
    console().print(f"{model.name}: {aliases or 'no aliases'}", markup=False)


def _show_version(version: ModelVersion) -> None:
    out = console()
    table = new_table(out, f"{version.name}@{version.version}", "")
    params = version.params
    rows = {
        "aliases": ", ".join(version.aliases),
        "params": _params(params),
        "image params": count(params.image),
        TEXT_PARAMS: with_embedding(params.text, params.text_without_embedding),
        "weights": _weights(version),
        "MACs": count(version.macs),
        "images": f"{version.image_size} px",
        "texts": f"{version.context_length} tokens, vocabulary {_vocabulary(version)}",
        "embeddings": f"{version.embed_dim} numbers",
        "nested sizes": ", ".join(map(str, version.embedding_sizes)),
        "teacher": version.teacher or "",
        "compatible with the teacher": _compatible(version),
        "job": version.job or "",
        "files": ", ".join(file.path for file in version.files),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    for task, scores in version.evaluation.items():
        numbers = {metric: value for metric, value in scores.student.items() if isinstance(value, int | float)}
        table.add_row(task, _listed(numbers))
        for size, shorter in scores.student.get("by_size", {}).items():
            table.add_row(f"{task}, {size} numbers", _listed(shorter))
    print_table(out, table)


def _compatible(version: ModelVersion) -> str:
    found = version.compatible_with
    return f"{100 * found.share:.1f}% of the teacher's own R@10 across the models" if found is not None else ""


def _listed(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{metric} {number(value)}" for metric, value in metrics.items())


def _params(params: Params) -> str:
    return f"{count(params.image + params.text)}, of which {count(params.text - params.text_without_embedding)} token embedding"


def _weights(version: ModelVersion) -> str:
    found = [file.bytes for file in version.files if file.path in WEIGHTS]
    return f"{sum(found) / 1e6:.1f} MB" if found else ""


def _vocabulary(version: ModelVersion) -> str:
    report = version.lineage.get("vocabulary")
    size = version.layout.vocab_size
    return f"{size:,} (reduced from {report['of']:,})" if isinstance(report, dict) and "of" in report else f"{size:,}"
