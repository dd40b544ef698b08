"""The Serve application: one ingress deployment that takes HTTP, gathers batches and computes them.

All in one deployment because a second hop halves the rate. Serve reads this module once to see what to deploy, in a process
that answers nothing, and again in each replica: so torch and open_clip, seconds to import, are left to the replicas.
"""

from typing import TYPE_CHECKING, Any, cast

from ray import serve

from tinyclip_workers.serving.http.application import make_app
from tinyclip_workers.serving.options import ServingOptions, Wanted
from tinyclip_workers.serving.replica.metrics import write_log

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica import replica as student


def _of_this_replica() -> "student.Student":
    replica: Any = serve.get_replica_context().servable_object
    found: student.Student = replica.student
    return found


@serve.deployment(name="Student", max_ongoing_requests=64, max_queued_requests=128)
@serve.ingress(make_app(_of_this_replica, tell_id=False))
class Student:
    """One replica."""

    def __init__(self, options: dict[str, Any]) -> None:
        from tinyclip_workers.serving.replica.replica import Student as Replica  # see above

        write_log()
        self.student = Replica(ServingOptions.model_validate(options))

    async def reconfigure(self, wanted: dict[str, Any]) -> None:
        """Serve has another `user_config`; the replica goes on answering meanwhile."""
        await self.student.models.follow(Wanted.model_validate(wanted))


def application(args: dict[str, Any]) -> serve.Application:
    """Raises pydantic.ValidationError for bad args."""
    options = ServingOptions.model_validate(args)
    bound: serve.Application = cast(Any, Student).bind(options.model_dump())
    return bound
