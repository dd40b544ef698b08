"""Checks of the sizes in a configuration that anybody may have written, before anything is built from them."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError
from tinyclip.schemas.layouts import Architecture, Layout

from tinyclip_workers.model.files.headers import WeightsError, shown_name

MAX_BLOCKS, MAX_SIDE, MAX_WIDTH, MAX_VOCABULARY = 200, 8192, 1 << 17, 10_000_000
"""Limits of the sizes in a layout: several times those of the largest published models."""


def plausible_layout(layout: Layout) -> Layout:
    """Return a layout that a user's file has, if its sizes are those of a model. Raises WeightsError.

    Shapes and parameters are computed from it, block by block.
    """
    image, text = layout.image, layout.text
    _expect_sizes([*image.layers, text.layers, len(image.heads or []), len(text.heads)], "blocks of a tower", MAX_BLOCKS, least=0)
    _expect_sizes([image.image_size, image.patch_size or 1, text.context_length], "image_size, patch_size and context", MAX_SIDE)
    _expect_sizes([layout.embed_dim, image.width, image.head_width, text.width, text.head_width], "widths", MAX_WIDTH)
    _expect_sizes([text.vocab_size], "vocab_size", MAX_VOCABULARY)
    _expect_sizes([*(image.heads or []), *(image.mlp or []), *text.heads, *text.mlp], "heads and mlp", MAX_WIDTH, least=0)
    pool = image.pool
    _expect_sizes([] if pool is None else [pool.width, pool.heads, pool.mlp], "width, heads and mlp of a pooling", MAX_WIDTH)
    fits = len(text.heads) == len(text.mlp) == text.layers and len(image.layers) == {"vit": 1, "resnet": 4}[image.kind]
    if image.kind == "resnet":
        fits = fits and pool is None
    if image.kind == "vit":
        fits = fits and image.patch_size is not None and len(image.heads or []) == len(image.mlp or []) == image.layers[0]
    if not fits:
        raise WeightsError("a layout has one number of heads and one of MLP units for each block; this one has others")
    return layout


def _expect_sizes(sizes: Iterable[int], what: str, most: int, *, least: int = 1) -> None:
    if not all(least <= size <= most for size in sizes):
        raise WeightsError(f"{what} of a model must be {least} to {most:,}; this one has others")


def expect_numbers_of_a_model(config: dict[str, Any], where: str) -> None:
    """Refuse numbers from which no layout is made: lists become as long as they say. Raises WeightsError."""
    for part in _parts(config):
        values = [number for value in part.values() for number in (value if isinstance(value, list) else [value])]
        layers = part.get("layers")
        counts = [count for count in (layers if isinstance(layers, list) else [layers]) if isinstance(count, int | float)]
        large = any(isinstance(number, int | float) and not abs(number) <= MAX_VOCABULARY for number in values)
        if large or len(values) > MAX_BLOCKS or not all(0 <= count <= MAX_BLOCKS for count in counts):
            message = f"has numbers beyond those of a model: up to {MAX_BLOCKS} layers and {MAX_VOCABULARY:,} tokens"
            raise WeightsError(f"{where} {message}")


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a configuration and all those inside it, with the names that transformers has for a number of layers as `layers`."""
    yield {("layers" if "layers" in name else name): value for name, value in config.items()}
    for value in config.values():
        if isinstance(value, dict):
            yield from _parts(value)


def place_of(error: Exception) -> str:
    """Return the field of an error in a document, for messages, which do not repeat values of the document."""
    if not isinstance(error, ValidationError):
        return ""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f" at {'.'.join(shown_name(str(part)) for part in first['loc'])}" if first["loc"] else ""


def expect_plausible(architecture: Architecture) -> None:
    """Check the sizes of an architecture that a user's file has. Raises WeightsError."""
    _expect_sizes([architecture.image_size, architecture.context_length], "image_size and context", MAX_SIDE)
    _expect_sizes([architecture.embed_dim], "widths", MAX_WIDTH)
    _expect_sizes([architecture.vocab_size], "vocab_size", MAX_VOCABULARY)
