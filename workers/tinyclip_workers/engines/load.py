"""Engines: what computes a student's embeddings.

`engine_protocol.py` is all that the service knows of one, `engine_torch.py` and `engine_openvino.py` are those that there are,
`engine_workshop.py` makes them, and `engine_choice.py` measures which one serves.
"""

from pathlib import Path

from tinyclip.schemas.deployments import EngineName

from tinyclip_workers.engines.builder import Workshop
from tinyclip_workers.engines.calibration import read_calibration
from tinyclip_workers.engines.choice import choose, named
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.model.folders import load_folder
from tinyclip_workers.types import Matrix

__all__ = ["Engine", "Matrix", "load_engine"]


def load_engine(
    model_uri: str, engine: EngineName = "torch", *, threads: int = 1, min_cosine: float = 0.99, cache: str | None = None
) -> Engine:
    """The engine for a model folder at a path or fsspec URI.

    `auto` measures the candidates on this machine. `cache` is a folder for conversions; null: `engine_cache.default_folder`.
    Raises FileNotFoundError or ValueError naming the folder or the file in it that cannot be used, and MissingExtra with the
    install command where a named engine's library is not there.
    """
    loaded = load_folder(model_uri)
    pictures = read_calibration(model_uri, loaded.layout.image.image_size)
    workshop = Workshop(loaded, pictures, threads=threads, cache=Path(cache) if cache else None)
    return choose(workshop, min_cosine) if engine == "auto" else named(workshop, engine)
