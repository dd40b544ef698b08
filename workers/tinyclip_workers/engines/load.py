"""Load a model version with the inference engine that a deployment names, or with the fastest one."""

from pathlib import Path

from tinyclip.schemas.deployments import EngineName

from tinyclip_workers.engines.builder import EngineBuilder
from tinyclip_workers.engines.calibration import read_calibration
from tinyclip_workers.engines.choice import build_named, choose_fastest
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.runtime.addresses import ServiceAddress


def load_engine(
    model_uri: str, engine: EngineName = "torch", *, threads: int = 1, min_cosine: float = 0.99, cache: str | None = None
) -> Engine:
    """Load the model folder at a path or fsspec URI into an engine.

    `auto` measures the candidates on this machine. `cache` is the folder of converted models, by default `cache.default_folder`.
    Raises FileNotFoundError or ValueError naming the folder or the file in it that cannot be used, and MissingExtra with the
    install command if a named engine's library is not installed.
    """
    loaded = load_folder(ServiceAddress(model_uri))
    images = read_calibration(model_uri, loaded.layout.image_size)
    builder = EngineBuilder(loaded, images, threads=threads, cache=Path(cache) if cache else None)
    return choose_fastest(builder, min_cosine) if engine == "auto" else build_named(builder, engine)
