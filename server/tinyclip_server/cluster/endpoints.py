"""`/v1/cluster`: the nodes of the Ray cluster, and what runs on them."""

from fastapi import APIRouter
from tinyclip.schemas import Cluster

from tinyclip_server.cluster import service
from tinyclip_server.http.services import Project, ServicesDep

router = APIRouter(prefix="/cluster", tags=["cluster"])


@router.get("", response_model=Cluster)
async def get(services: ServicesDep, project: Project) -> Cluster:
    """Get nodes with their resources, and the Ray jobs and replicas of the caller's project."""
    return await service.cluster(services, project)
