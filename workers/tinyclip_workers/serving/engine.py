"""Engines: what computes a student's embeddings.

`engine_protocol.py` is all that the service knows of one, `engine_torch.py` and `engine_openvino.py` are those that there are,
`engine_workshop.py` makes them, and `engine_choice.py` measures which one serves.
"""

from pathlib import Path

from tinyclip.schemas.registry import EngineName

from tinyclip_workers.calibration import read_calibration
from tinyclip_workers.model_folder import load_folder
from tinyclip_workers.serving.engine_choice import choose, named
from tinyclip_workers.serving.engine_protocol import Engine, Matrix
from tinyclip_workers.serving.engine_workshop import Workshop
from tinyclip_workers.serving.options import ServingOptions

__all__ = ["Engine", "Matrix", "engine_for", "load_engine"]


def engine_for(options: ServingOptions) -> Engine:
    """A replica's. Raises as `load_engine`."""
    return load_engine(options.model_uri, options.engine, threads=options.threads, min_cosine=options.engine_min_cosine)


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
