"""`tinyclip-client models export` and `models exports`: versions in the formats of other libraries."""

from collections.abc import Sequence
from typing import Annotated

import typer

from tinyclip._resources import exports as calls
from tinyclip.cli.display.console import console, new_table, print_json, print_table
from tinyclip.cli.display.progress import progress_bar
from tinyclip.cli.problems import FAILED
from tinyclip.cli.session import AsJson, Timeout, connect, send
from tinyclip.schemas import EmbeddingType, Export, ExportFormat, ExportState, Page, VocabularyChoice, VocabularyReport

_Reference = Annotated[str, typer.Argument(metavar="MODEL", help="For example emoji@3, emoji@best or emoji (the latest).")]


def export(
    context: typer.Context,
    model: _Reference,
    formats: Annotated[list[ExportFormat], typer.Option("--format", help="A format; may be repeated.")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits; for onnx and openvino.")] = False,
    vocabulary: Annotated[
        VocabularyChoice, typer.Option(help="reduced: only the tokens of the training captions and evaluation tasks.")
    ] = VocabularyChoice.WHOLE,
    embedding: Annotated[
        EmbeddingType, typer.Option(help="Type of the token embedding; int8 for onnx, openvino and tinyclip.")
    ] = EmbeddingType.FP32,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the files.")] = True,
    timeout: Timeout = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Export a version to formats of other libraries; `models pull --export` downloads them."""
    with connect(context) as client:
        call = calls.export(model, formats, int8=int8, vocabulary=vocabulary, embedding=embedding)
        page, response = client.send_with_response(call)
        exports, text = page.items, response.text
        if wait:
            version, names = exports[0].model, [each.name for each in exports]
            with progress_bar(f"exporting {version}") as show:
                exports = client.models.wait_for_exports(
                    version, names, timeout=timeout,
                    on_progress=lambda now: show(sum(each.progress for each in now) / len(names)),
                )
            exports.sort(key=lambda each: names.index(each.name))
            text = Page[Export](items=exports).model_dump_json()
    if as_json:
        print_json(text)
    else:
        _show(exports)
    raise typer.Exit(FAILED if any(each.state is ExportState.FAILED for each in exports) else 0)


def exports(
    context: typer.Context,
    model: _Reference,
    remove: Annotated[str | None, typer.Option("--remove", metavar="NAME", help="Delete this export, as onnx-int8.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the exports of a version, or delete one."""
    with connect(context) as client:
        if remove is not None:
            send(client, calls.delete_export(model, remove), lambda export: _show([export]), as_json)
        else:
            send(client, calls.exports(model), lambda page: _show(page.items), as_json)


def _show(exports: Sequence[Export]) -> None:
    out = console()
    table = new_table(out, "export", "of", "state", "MB", "", right=("MB",))
    for each in exports:
        size = f"{sum(file.bytes for file in each.files) / 1e6:.1f}" if each.files else ""
        table.add_row(each.name, each.model, str(each.state), size, each.message)
    print_table(out, table)
    for each in exports:
        if each.reduction is not None:
            out.print(f"{each.name}: {_reduction(each.reduction)}", markup=False)


def _reduction(report: VocabularyReport) -> str:
    kept = f"{report.tokens:,} of {report.of:,} tokens, {report.bytes_saved / 1e6:.1f} MB saved"
    if report.exact_share is None:
        return kept
    share = f"{100 * report.exact_share:.1f}% of {report.evaluation_texts:,} evaluation captions"
    return f"{kept}; {share} use only tokens of the training data"
