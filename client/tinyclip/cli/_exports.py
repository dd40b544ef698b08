"""`tinyclip-client models export` and `models exports`: versions in the files of other libraries."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn

from tinyclip._client import Client
from tinyclip._resources import exports as calls
from tinyclip.cli._problems import FAILED
from tinyclip.cli._session import AsJson, answer, connect, console, messages, print_json, print_table, table
from tinyclip.schemas import Export, ExportFormat, ExportState, Page

_Reference = Annotated[str, typer.Argument(metavar="MODEL", help="As emoji@3, emoji@best or emoji (the latest).")]


def export(
    context: typer.Context,
    model: _Reference,
    formats: Annotated[list[ExportFormat], typer.Option("--format", help="May be given several times.")],
    int8: Annotated[bool, typer.Option("--int8", help="In 8 bits; for onnx and openvino.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the files.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Write a version in the files of other libraries; models pull --export fetches them."""
    with connect(context) as client:
        asked, response = client.send_with_response(calls.export(model, formats, int8=int8))
        found, text = asked.items, response.text
        version, names = found[0].model, [each.name for each in found]
        if wait:
            found = _wait(client, version, names, timeout)
            text = Page[Export](items=found).model_dump_json()
    if as_json:
        print_json(text)
    else:
        _show(found)
    raise typer.Exit(FAILED if any(each.state is ExportState.FAILED for each in found) else 0)


def exports(
    context: typer.Context,
    model: _Reference,
    remove: Annotated[str | None, typer.Option("--remove", metavar="NAME", help="Take one away, as onnx-int8.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the exports of a version, or take one away."""
    with connect(context) as client:
        if remove is not None:
            answer(client, calls.delete_export(model, remove), lambda export: _show([export]), as_json)
        else:
            answer(client, calls.exports(model), lambda page: _show(page.items), as_json)


def _wait(client: Client, version: str, names: Sequence[str], timeout: float) -> list[Export]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TextColumn("{task.percentage:.0f}%"))
    out = messages()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
        bar = bars.add_task(f"exporting {version}", total=float(len(names)))
        done = client.models.wait_for_exports(
            version, names, timeout=timeout,
            on_progress=lambda now: bars.update(bar, completed=sum(each.progress for each in now)),
        )
    by_name = {each.name: each for each in done}
    return [by_name[name] for name in names if name in by_name]


def _show(found: Sequence[Export]) -> None:
    out = console()
    made = table(out, "export", "of", "state", "MB", "", right=("MB",))
    for each in found:
        size = f"{sum(file.bytes for file in each.files) / 1e6:.1f}" if each.files else ""
        made.add_row(each.name, each.model, str(each.state), size, each.message)
    print_table(out, made)
