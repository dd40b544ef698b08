"""The Serve application: one ingress deployment whose replicas receive HTTP, batch the queries and compute them.

It is a single deployment because a second hop halves the throughput. Serve imports this module once to find out what to deploy,
in a process that answers no queries, and again in each replica. Therefore only replicas import torch and open_clip, which take
seconds.
"""

from typing import TYPE_CHECKING, Any, cast

from ray import serve

from tinyclip_workers.serving.http.application import make_app
from tinyclip_workers.serving.options import ServingOptions, UserConfig
from tinyclip_workers.serving.replica.metrics import configure_access_log

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica


def _current_replica() -> "Replica":
    deployment: Any = serve.get_replica_context().servable_object
    replica: Replica = deployment.replica
    return replica


@serve.deployment(name="Student", max_ongoing_requests=64, max_queued_requests=128)
@serve.ingress(make_app(_current_replica, send_request_id=False))
class IngressDeployment:
    """The Serve deployment; each instance is one replica."""

    def __init__(self, options: dict[str, Any]) -> None:
        from tinyclip_workers.serving.replica.replica import Replica  # see above

        configure_access_log()
        self.replica = Replica(ServingOptions.model_validate(options))

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply a new `user_config`; the replica continues to answer queries."""
        await self.replica.models.reconfigure(UserConfig.model_validate(user_config))


def application(args: dict[str, Any]) -> serve.Application:
    """Return the application for `ServingOptions`. Raises pydantic.ValidationError."""
    options = ServingOptions.model_validate(args)
    bound: serve.Application = cast(Any, IngressDeployment).bind(options.model_dump())
    return bound
