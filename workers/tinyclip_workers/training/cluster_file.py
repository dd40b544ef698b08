"""The file of clusters that `python -m tinyclip_workers.training.clusters` writes and `objective.clusters` names.

A safetensors file with `centroids` (K, E) in fp32, L2-normalised: k-means centres of a teacher's image embeddings. Its metadata
says what they were made of (`teacher`, `images`, `seed`).
"""

from collections.abc import Mapping

import safetensors.torch
import torch.nn.functional as F
from torch import Tensor

from tinyclip_workers.model.weights import Header, WeightsError, load_state_dict, read_header
from tinyclip_workers.runtime.filesystems import open_filesystem, open_store

CENTROIDS = "centroids"


class ClustersError(ValueError):
    """A file of clusters that cannot be used; the message names it."""


def save_clusters(uri: str, centroids_KE: Tensor, metadata: Mapping[str, str]) -> None:
    """Write the whole file or, if killed meanwhile, nothing. `uri` is a path or fsspec URI."""
    folder, _, name = uri.rpartition("/")
    tensors = {CENTROIDS: F.normalize(centroids_KE.float(), dim=-1).contiguous()}
    open_store(folder or ("/" if uri.startswith("/") else ".")).write_bytes(name, safetensors.torch.save(tensors, dict(metadata)))


def load_clusters(uri: str) -> Tensor:
    """The centres (K, E), on the CPU. Raises ClustersError."""
    read_clusters_header(uri)
    try:
        return load_state_dict(uri)[CENTROIDS]
    except (WeightsError, OSError) as error:
        raise ClustersError(str(error)) from error


def read_clusters_header(uri: str) -> Header:
    """Shape and metadata without reading the centres. Raises ClustersError naming the file and what to do."""
    try:
        fs, path = open_filesystem(uri)
        header = read_header(uri) if fs.exists(path) else None
    except (ValueError, OSError) as error:  # no driver for this kind of URI, no access, no safetensors
        raise ClustersError(f"{error}; make it with python -m tinyclip_workers.training.clusters SPEC OUT") from error
    if header is None:
        raise ClustersError(f"there is no file {uri}; make it with python -m tinyclip_workers.training.clusters SPEC {uri}")
    if len(header.shapes.get(CENTROIDS, ())) != 2:
        found = ", ".join(sorted(header.shapes)) or "nothing"
        raise ClustersError(
            f"{uri} has no table of {CENTROIDS} but {found}; make it with python -m tinyclip_workers.training.clusters SPEC OUT"
        )
    return header
