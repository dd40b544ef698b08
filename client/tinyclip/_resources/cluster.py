"""The Ray cluster: nodes, and what runs on them."""

from tinyclip._http.calls import Call, as_model, path
from tinyclip.schemas import Cluster


def get() -> Call[Cluster]:
    """Return the nodes of the cluster, and what of the project runs on them."""
    return Call("GET", path("cluster"), as_model(Cluster))
