"""`tinyclip-client label-sets …`."""

from typing import Annotated

import typer

from tinyclip._resources import label_sets as calls
from tinyclip.cli._queries import Deployment, read_labels
from tinyclip.cli._session import AsJson, PageToken, answer, connect, console, more, print_table, table
from tinyclip.schemas import LabelSet, LabelSetSummary, Page

app = typer.Typer(help="Labels that a deployment keeps under a name.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The label set.")]


@app.command()
def put(
    context: typer.Context,
    name: Name,
    labels: Annotated[str, typer.Option(metavar="A,B,C", help="The labels; @FILE has one a line.")],
    deployment: Deployment,
    template: Annotated[list[str] | None, typer.Option(help="As 'a photo of a {}.'; several are averaged.")] = None,
    as_json: AsJson = False,
) -> None:
    """Register labels, or others instead. `classify --label-set NAME` asks with them."""
    with connect(context) as client:
        endpoint = client.deployments.open(deployment).endpoint
        answer(client, calls.put(endpoint, name, read_labels(labels), template), _show, as_json)


@app.command()
def get(context: typer.Context, name: Name, deployment: Deployment, as_json: AsJson = False) -> None:
    """Show a set's labels, one a line."""
    with connect(context) as client:
        endpoint = client.deployments.open(deployment).endpoint
        answer(client, calls.get(endpoint, name), lambda found: print("\n".join(found.labels)), as_json)


@app.command("list")
def find(context: typer.Context, deployment: Deployment, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List a deployment's label sets."""
    with connect(context) as client:
        endpoint = client.deployments.open(deployment).endpoint
        answer(client, calls.page(endpoint, page_token), _show_page, as_json)


@app.command()
def delete(context: typer.Context, name: Name, deployment: Deployment) -> None:
    """Forget a set."""
    with connect(context) as client:
        client.deployments.open(deployment).label_sets.delete(name)
        console().print(f"{name} deleted", markup=False)


def _show(made: LabelSet) -> None:
    console().print(f"{made.name}: {len(made.labels)} labels, {len(made.templates)} templates", markup=False)


def _show_page(page: Page[LabelSetSummary]) -> None:
    out = console()
    made = table(out, "name", "labels", "templates", right=("labels", "templates"))
    for found in page.items:
        made.add_row(found.name, str(found.labels), str(found.templates))
    print_table(out, made)
    more(out, page.next_page_token)
