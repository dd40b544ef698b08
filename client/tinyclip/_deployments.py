"""Deployments: put a model version on Ray Serve, and ask it."""

from collections.abc import AsyncIterator, Iterator, Sequence

from tinyclip._calls import AsyncResource, Call, Resource, as_model, async_method, path, sync_method
from tinyclip._pages import every, every_async
from tinyclip._queries import AsyncStudent, Student
from tinyclip._waiting import Deadline, poll, poll_async
from tinyclip.errors import Unavailable
from tinyclip.schemas import Deployment, DeploymentState, EngineName, Page, Problem

_ANSWERING = (DeploymentState.READY, DeploymentState.UPDATING)
_SETTLED = (DeploymentState.READY, DeploymentState.UNHEALTHY)


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Deployment]]:
    """One page of deployments."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", path("deployments"), as_model(Page[Deployment]), query=query)


def get(name: str) -> Call[Deployment]:
    """One deployment as it is now."""
    return Call("GET", path("deployments", name), as_model(Deployment))


def put(
    name: str,
    model: str,
    *,
    canary: str | None = None,
    canary_weight: float = 0.1,
    models: Sequence[str] = (),
    resident: int = 4,
    min_replicas: int = 1,
    max_replicas: int | None = None,
    engine: EngineName | str = "auto",
) -> Call[Deployment]:
    """Creates a deployment of `model` (`emoji@best`), or replaces its model without dropping a request; then `wait`.

    `canary` is another version of it that answers the share `canary_weight` of the queries; `models` are more models that the
    same replicas answer for, `resident` of them in memory at once."""
    # As plain data: the server says what is wrong with it, in its own words.
    body = {
        "model": model,
        "canary": {"model": canary, "weight": canary_weight} if canary is not None else None,
        "models": list(models),
        "resident": resident,
        "replicas": {"min": min_replicas, "max": max_replicas or min_replicas},
        "engine": engine,
    }
    return Call("PUT", path("deployments", name), as_model(Deployment), body=body)


def delete(name: str) -> Call[Deployment]:
    """Takes a deployment down: what it is answering is answered, then the name is free again."""
    return Call("DELETE", path("deployments", name), as_model(Deployment))


class Deployments(Resource):
    """`client.deployments`."""

    page = sync_method(page)
    get = sync_method(get)
    put = sync_method(put)
    delete = sync_method(delete)

    def list(self) -> Iterator[Deployment]:
        """All deployments."""
        return every(self._transport, lambda token: page(page_token=token))

    def wait(self, name: str, *, timeout: float | None = None) -> Deployment:
        """The deployment once it is ready or unhealthy. Raises `WaitTimeout` after `timeout` seconds."""
        return poll(lambda: self.get(name), _is_settled, Deadline(f"deployment {name} is not ready", timeout))

    def open(self, name: str, *, model: str | None = None) -> Student:
        """The student behind a deployment, to be asked; of several, the one named `model`.

        Raises `Unavailable` if it cannot answer yet."""
        return Student(self._transport, _answering(self.get(name)).endpoint, model)


class AsyncDeployments(AsyncResource):
    """`async_client.deployments`; see `Deployments`."""

    page = async_method(page)
    get = async_method(get)
    put = async_method(put)
    delete = async_method(delete)

    def list(self) -> AsyncIterator[Deployment]:
        """All deployments."""
        return every_async(self._transport, lambda token: page(page_token=token))

    async def wait(self, name: str, *, timeout: float | None = None) -> Deployment:
        """The deployment once it is ready or unhealthy; see `Deployments.wait`."""
        return await poll_async(lambda: self.get(name), _is_settled, Deadline(f"deployment {name} is not ready", timeout))

    async def open(self, name: str, *, model: str | None = None) -> AsyncStudent:
        """The student behind a deployment, to be asked; see `Deployments.open`."""
        return AsyncStudent(self._transport, _answering(await self.get(name)).endpoint, model)


def _is_settled(deployment: Deployment) -> bool:
    return deployment.state in _SETTLED


def _answering(deployment: Deployment) -> Deployment:
    if deployment.state in _ANSWERING or deployment.serving is not None:
        return deployment
    because = f" ({deployment.message})" if deployment.message else ""
    raise Unavailable(Problem(
        title="Service Unavailable", status=503, code="deployment_not_ready", retryable=True,
        detail=f"deployment {deployment.name} is {deployment.state}, not ready{because}; "
        f"wait until `tinyclip-client deployments get {deployment.name}` says ready",
    ))
