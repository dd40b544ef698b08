"""`tinyclip-client label-sets …`."""

from typing import Annotated

import typer

from tinyclip._resources import label_sets as calls
from tinyclip.cli.commands.queries import Deployment, read_labels
from tinyclip.cli.display.console import console, new_table, print_next_page, print_table
from tinyclip.cli.session import AsJson, PageToken, connect, send
from tinyclip.schemas import LabelSet, LabelSetSummary, Page

app = typer.Typer(help="Register labels under a name at a deployment.", no_args_is_help=True)

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
    with connect(context) as client:
        endpoint = client.deployments.open(deployment).endpoint
        send(client, calls.put(endpoint, name, read_labels(labels), template), _show, as_json)


@app.command()
def get(context: typer.Context, name: Name, deployment: Deployment, as_json: AsJson = False) -> None:
    """Print a label set, one label per line."""
    with connect(context) as client:
        endpoint = client.deployments.open(deployment).endpoint
        send(client, calls.get(endpoint, name), lambda label_set: print("\n".join(label_set.labels)), as_json)


@app.command("list")
def list_(context: typer.Context, deployment: Deployment, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List the label sets of a deployment."""
    with connect(context) as client:
        endpoint = client.deployments.open(deployment).endpoint
        send(client, calls.page(endpoint, page_token), _show_page, as_json)


@app.command()
def delete(context: typer.Context, name: Name, deployment: Deployment) -> None:
    """Delete a label set."""
    with connect(context) as client:
        client.deployments.open(deployment).label_sets.delete(name)
        console().print(f"{name} deleted", markup=False)


def _show(label_set: LabelSet) -> None:
    console().print(f"{label_set.name}: {len(label_set.labels)} labels, {len(label_set.templates)} templates", markup=False)


def _show_page(page: Page[LabelSetSummary]) -> None:
    out = console()
    table = new_table(out, "name", "labels", "templates", right=("labels", "templates"))
    for summary in page.items:
        table.add_row(summary.name, str(summary.labels), str(summary.templates))
    print_table(out, table)
    print_next_page(out, page.next_page_token)
