"""Deployments of model versions on Ray Serve."""

from collections.abc import AsyncGenerator, Sequence

from tinyclip._http.calls import Call, as_model, path
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, iteration, method, operation
from tinyclip._http.waiting import Deadline
from tinyclip._resources.student import AsyncStudent, Student
from tinyclip.errors import Unavailable
from tinyclip.schemas import Deployment, DeploymentState, EngineName, Page, Problem, Traffic


def page(*, page_size: int | None = None, page_token: str | None = None) -> Call[Page[Deployment]]:
    """Return one page of deployments."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", path("deployments"), as_model(Page[Deployment]), query=query)


def get(name: str) -> Call[Deployment]:
    """Return one deployment."""
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
    """Create a deployment of `model` (`emoji@best`), or replace its model without dropping a request; then `wait`.

    `canary` is another version of the model, which answers the share `canary_weight` of the queries. `models` are further models
    that the same replicas serve, `resident` of them in memory at once."""
    # Plain data instead of `DeploymentPut`: the server reports what is wrong with it.
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
    """Delete a deployment after it has answered the requests that it has accepted; then its name is free."""
    return Call("DELETE", path("deployments", name), as_model(Deployment))


def traffic(name: str) -> Call[Traffic]:
    """Return a deployment's requests, latencies and replicas, since the present replicas started."""
    return Call("GET", path("deployments", name, "traffic"), as_model(Traffic))


class DeploymentMethods(ResourceMethods):
    page = method(page)
    get = method(get)
    put = method(put)
    delete = method(delete)
    traffic = method(traffic)

    @iteration
    def list(self) -> AsyncGenerator[Deployment, None]:
        """Iterate over all deployments."""
        return self._items(lambda token: page(page_token=token))

    @operation
    async def wait(self, name: str, *, timeout: float | None = None) -> Deployment:
        """Wait until a deployment is ready or unhealthy, and return it. Raises `WaitTimeout` after `timeout` seconds."""
        deadline = Deadline(f"deployment {name} is not ready", timeout)
        return await self._poll(get(name), lambda deployment: deployment.state.settled, deadline)

    @operation
    async def _endpoint(self, name: str) -> str:
        """Return the URL of a deployment that answers. Raises `Unavailable` for one that does not yet."""
        deployment = await self._transport.send(get(name))
        if deployment.state in (DeploymentState.READY, DeploymentState.UPDATING) or deployment.serving is not None:
            return deployment.endpoint
        reason = f" ({deployment.message})" if deployment.message else ""
        raise Unavailable(Problem(
            title="Service Unavailable", status=503, code="deployment_not_ready", retryable=True,
            detail=f"deployment {name} is {deployment.state}, not ready{reason}; "
            f"wait until `tinyclip-client deployments get {name}` reports ready",
        ))


class Deployments(DeploymentMethods, Resource):
    """`client.deployments`."""

    def open(self, name: str, *, model: str | None = None) -> Student:
        """Return the student behind a deployment; of several, the one named `model`. Raises `Unavailable` if it is not ready."""
        return Student(self._transport, self._endpoint(name), model)


class AsyncDeployments(DeploymentMethods, AsyncResource):
    """`async_client.deployments`."""

    async def open(self, name: str, *, model: str | None = None) -> AsyncStudent:
        """Return the student behind a deployment; see `Deployments.open`."""
        return AsyncStudent(self._transport, await self._endpoint(name), model)
