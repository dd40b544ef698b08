"""`tinyclip-client label-sets …`."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from tinyclip._http.calls import Call
from tinyclip._resources import label_sets as calls
from tinyclip._resources.student import Student
from tinyclip.cli.commands.queries import Deployment, read_labels
from tinyclip.cli.display.console import console, messages, new_table, print_next_page, print_table
from tinyclip.cli.session import AsJson, PageToken, connect, send
from tinyclip.schemas import LabelSet, LabelSetSummary, Page

app = typer.Typer(help="Register labels under a name at a deployment.", no_args_is_help=True)

T = TypeVar("T")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The label set.")]


@app.command()
def put(
    context: typer.Context,
    name: Name,
    labels: Annotated[str, typer.Option(metavar="A,B,C", help="The labels; @FILE has one per line.")],
    deployment: Deployment,
    template: Annotated[list[str] | None, typer.Option(help="For example 'a photo of a {}.'; several are averaged.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create or replace a label set; `classify --label-set NAME` uses it."""
    label_list = read_labels(labels)
    _run(context, deployment, lambda at: calls.put(at, name, label_list, templates=template), _show, as_json)


@app.command()
def get(context: typer.Context, name: Name, deployment: Deployment, as_json: AsJson = False) -> None:
    """Print a label set, one label per line."""
    _run(context, deployment, lambda at: calls.get(at, name), lambda found: print("\n".join(found.labels)), as_json)


@app.command("list")
def list_(context: typer.Context, deployment: Deployment, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List the label sets of a deployment."""
    _run(context, deployment, lambda at: calls.page(at, page_token), _show_page, as_json)


@app.command()
def delete(context: typer.Context, name: Name, deployment: Deployment) -> None:
    """Delete a label set."""
    _run(context, deployment, lambda at: calls.delete(at, name), lambda _: print(f"{name} deleted"), as_json=False)


def _run(
    context: typer.Context, deployment: str, describe: Callable[[Student], Call[T]], show: Callable[[T], None], as_json: bool
) -> None:
    with connect(context) as client:
        send(client, describe(client.deployments.open(deployment)), show, as_json)


def _show(label_set: LabelSet) -> None:
    console().print(f"{label_set.name}: {len(label_set.labels)} labels, {len(label_set.templates)} templates", markup=False)
    for warning in label_set.warnings:
        messages().print(f"warning: {warning}", markup=False)


def _show_page(page: Page[LabelSetSummary]) -> None:
    out = console()
    table = new_table(out, "name", "labels", "templates", right=("labels", "templates"))
    for summary in page.items:
        table.add_row(summary.name, str(summary.labels), str(summary.templates))
    print_table(out, table)
    print_next_page(out, page.next_page_token)
