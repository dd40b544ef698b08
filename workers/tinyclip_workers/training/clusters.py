"""Clusters of a teacher's image embeddings, for the objective's `cluster_instance`.

    python -m tinyclip_workers.training.clusters job.yaml clusters.safetensors --clusters 256

Reads the training images of a job spec (none that are held out), embeds them with its teacher, the first one if there are
several, and writes the k-means centres to a file for `objective.clusters`. The file is written atomically at the end.

Mini-batch k-means of scikit-learn on L2-normalised embeddings, its centres normalised: on the sphere, nearest and most similar
are the same. It holds the embeddings in memory (`--images` of them at most), which suffices for thousands of clusters; the
million of the CLIP-CID paper would need another library.

The file is safetensors: `centroids` (K, E) in fp32, L2-normalised, with `teacher`, `images` and `seed` in its metadata.
"""

import argparse
import logging
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from rich.progress import track
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import TrainData
from tinyclip.specfile import load_spec
from torch import Tensor

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, is_held_out
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.evaluation.embedding import embed_images, evaluation_mode
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.files.headers import WeightsError, shown_name
from tinyclip_workers.model.files.sources import load_teacher
from tinyclip_workers.model.files.weights import Header, load_state_dict, read_header
from tinyclip_workers.runtime.filesystems import open_filesystem, open_store
from tinyclip_workers.runtime.user_files import store_errors

log = logging.getLogger(__name__)

CENTROIDS = "centroids"
MAX_SHOWN_TENSORS = 5


class ClustersError(ValueError):
    """A file of clusters that cannot be used; the message names the file."""


def save_clusters(uri: str, centroids_KE: Tensor, metadata: Mapping[str, str]) -> None:
    """Write the file atomically. `uri` is a path or fsspec URI."""
    folder, _, name = uri.rpartition("/")
    tensors = {CENTROIDS: F.normalize(centroids_KE.float(), dim=-1).contiguous()}
    open_store(folder or ("/" if uri.startswith("/") else ".")).write_bytes(name, safetensors.torch.save(tensors, dict(metadata)))


def load_clusters(uri: str) -> Tensor:
    """Load the centres (K, E) to the CPU. Raises ClustersError."""
    read_clusters_header(uri)
    try:
        return load_state_dict(uri)[CENTROIDS]
    except (WeightsError, OSError) as error:
        raise ClustersError(str(error)) from error


def read_clusters_header(uri: str) -> Header:
    """Read shape and metadata without the centres. Raises ClustersError naming the file and the remedy."""
    try:
        fs, path = open_filesystem(uri)
        with store_errors(uri):
            exists = fs.exists(path)
        header = read_header(uri) if exists else None
    except (ValueError, OSError) as error:  # no driver for this kind of URI, no access, no safetensors
        raise ClustersError(f"{error}; make it with python -m tinyclip_workers.training.clusters SPEC OUT") from error
    if header is None:
        raise ClustersError(f"there is no file {uri}; make it with python -m tinyclip_workers.training.clusters SPEC {uri}")
    if len(header.shapes.get(CENTROIDS, ())) != 2:
        names = [shown_name(name) for name in header.shapes]
        found = (", ".join(names[:MAX_SHOWN_TENSORS]) + (", …" if len(names) > MAX_SHOWN_TENSORS else "")) or "nothing"
        raise ClustersError(
            f"{uri} has no table of {CENTROIDS} but {found}; make it with python -m tinyclip_workers.training.clusters SPEC OUT"
        )
    return header


def main() -> None:
    """Run the command; exit with status 1 and the reason on stderr if the teacher or the data cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="job spec whose teacher and data.train are used")
    parser.add_argument("out", help="path or URI of the file to write")
    parser.add_argument("--clusters", type=int, default=256, help="number of clusters (default: %(default)s)")
    parser.add_argument("--images", type=int, default=200_000, help="maximum number of images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        spec = JobSpec.model_validate(load_spec(arguments.spec))
        make_clusters(spec, arguments.out, arguments.clusters, arguments.images, arguments.seed, arguments.device)
    except (DataError, TeacherError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def make_clusters(spec: JobSpec, out: str, clusters: int, images: int = 200_000, seed: int = 0, device: str = "cpu") -> None:
    """Write `clusters` centres of the teacher's embeddings of at most `images` training images.

    Raises ValueError without a teacher or with fewer images than clusters, TeacherError, DataError.
    """
    if spec.first_teacher is None:
        raise ValueError("the spec has no teacher to embed images with; add one")
    teacher = load_teacher(spec.first_teacher, spec.every_teacher()[0].pointer)
    embeddings_NE = _embeddings(teacher, spec.data.train, images, seed, torch.device(device))
    if len(embeddings_NE) < clusters:
        raise ValueError(f"{len(embeddings_NE)} images are too few for {clusters} clusters; lower --clusters")
    log.info("clustering %d embeddings of %s", len(embeddings_NE), teacher.name)
    from sklearn.cluster import MiniBatchKMeans  # slow to import, and training only reads the file

    batch_size = max(1024, 4 * clusters)
    kmeans = MiniBatchKMeans(clusters, batch_size=batch_size, n_init=1, random_state=seed).fit(embeddings_NE.numpy())
    metadata = {"teacher": teacher.name, "teacher_sha256": teacher.digest, "images": f"{len(embeddings_NE)}", "seed": f"{seed}"}
    save_clusters(out, torch.from_numpy(kmeans.cluster_centers_), metadata)
    log.info("wrote %d clusters to %s", clusters, out)


def _embeddings(teacher: LoadedModel, train: TrainData, images: int, seed: int, device: torch.device) -> Tensor:
    """Return L2-normalised embeddings (N, E) of at most `images` images, from shards in an order given by the seed."""
    urls = expand_shards(train.patterns)
    random.Random(seed).shuffle(urls)
    skipped = Skipped()

    def samples() -> Iterator[tuple[Sample, None]]:
        seen = (s for s in read_shards(urls, skipped) if not is_held_out(s["__key__"], train.holdout))
        yield from ((sample, None) for sample, _ in zip(seen, track(range(images), "embedding"), strict=False))

    def broken(sample: Sample, _: None, error: Exception) -> None:
        skipped.add_sample(sample["__key__"], error)

    with evaluation_mode([teacher], device):
        found = embed_images({"teacher": teacher}, samples(), train.image_key, broken)
    if skipped.samples:
        log.warning("%d images could not be read: %s", skipped.samples, "; ".join(skipped.examples))
    return found.images_NE["teacher"]


if __name__ == "__main__":
    main()
