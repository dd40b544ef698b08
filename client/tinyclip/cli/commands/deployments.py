"""`tinyclip-client deployments …`."""

from typing import Annotated, get_args

import typer

from tinyclip._resources import deployments as calls
from tinyclip.cli.display.console import console, messages, new_table, print_next_page, print_table
from tinyclip.cli.problems import FAILED
from tinyclip.cli.session import AsJson, NoWait, PageSize, PageToken, Timeout, connect, run, send
from tinyclip.schemas import Deployment, DeploymentState, EngineName, Page

app = typer.Typer(help="Create, list and delete deployments on Ray Serve.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The deployment.")]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    model: Annotated[str, typer.Option(help="The model version, for example emoji@best.")],
    canary: Annotated[str | None, typer.Option(help="Another version of the model, for a share of the queries.")] = None,
    canary_weight: Annotated[float, typer.Option(help="The canary's share of the queries.")] = 0.1,
    also: Annotated[list[str] | None, typer.Option(help="A further model for the same replicas; may be repeated.")] = None,
    resident: Annotated[int, typer.Option(min=1, help="How many of the further models a replica keeps in memory.")] = 4,
    min_replicas: Annotated[int, typer.Option(min=1)] = 1,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="By default as many as --min-replicas.")] = None,
    engine: Annotated[str, typer.Option(help=f"The inference engine: {', '.join(get_args(EngineName))}.")] = "auto",
    no_wait: NoWait = False,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
) -> None:
    """Create or update a deployment."""
    put = calls.put(
        name, model, canary=canary, canary_weight=canary_weight, models=also or (), resident=resident,
        min_replicas=min_replicas, max_replicas=max_replicas, engine=engine,
    )  # fmt: skip
    with connect(context) as client:
        if no_wait:
            send(client, put, _show, as_json)
            return
        client.send(put)
        with messages().status(f"{name} is deploying {model}"):
            settled = client.deployments.wait(name, timeout=timeout)
        send(client, calls.get(name), _show, as_json)
        raise typer.Exit(0 if settled.state is DeploymentState.READY else FAILED)


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List deployments."""
    run(context, calls.page(page_size=page_size, page_token=page_token), _show_page, as_json)


@app.command()
def get(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a deployment."""
    run(context, calls.get(name), _show, as_json)


@app.command()
def delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete a deployment."""
    run(context, calls.delete(name), _show, as_json)


def _show(deployment: Deployment) -> None:
    message = f": {deployment.message}" if deployment.message else ""
    canary = f" with {deployment.canary.weight:.0%} for {deployment.canary.model}" if deployment.canary else ""
    line = f"{deployment.name} {deployment.model}{canary} {deployment.state}{message}"
    where = f" at {deployment.endpoint}" if deployment.state is DeploymentState.READY else ""
    console().print(line + where, markup=False)


def _show_page(page: Page[Deployment]) -> None:
    out = console()
    table = new_table(out, "name", "model", "state", "replicas", "endpoint", "message")
    for item in page.items:
        replicas = f"{item.replicas.min}-{item.replicas.max}"
        table.add_row(item.name, item.model, item.state, replicas, item.endpoint, item.message)
    print_table(out, table)
    print_next_page(out, page.next_page_token)
