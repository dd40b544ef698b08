"""The types in which embeddings are stored: bf16, fp32, or int8 with a scale for each embedding.

Embeddings are L2-normalised. bf16 keeps 8 bits of each number, int8 7 bits relative to the largest one of an embedding.
"""

import numpy as np
import torch
from torch import Tensor

from tinyclip_workers.data.reinforcement.tensor_files import Array, Shapes

STORED = {"bf16": "BF16", "fp32": "F32", "int8": "I8"}
BYTES = {"bf16": 2, "fp32": 4, "int8": 1}
"""Of one number."""
LEVELS = 127
SCALE = ".scale"
"""Suffix of the name of the tensor with the scales of int8 embeddings."""


def embedding_tensors(name: str, shape: tuple[int, ...], dtype: str) -> Shapes:
    """Return the tensors in which embeddings (…, E) are stored."""
    scales = {name + SCALE: ("F32", shape[:-1])} if dtype == "int8" else {}
    return {name: (STORED[dtype], shape), **scales}


def to_stored(embeddings_NE: Tensor, dtype: str) -> tuple[Array, Array | None]:
    """Convert fp32 embeddings; returns numbers (N, E), and scales (N) of int8."""
    x_NE = embeddings_NE.detach().cpu().float()
    if dtype == "fp32":
        return x_NE.numpy(), None
    if dtype == "bf16":
        return x_NE.bfloat16().view(torch.int16).numpy().view(np.uint16), None
    scale_N = x_NE.abs().amax(dim=1) / LEVELS
    steps_NE = (x_NE / scale_N.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
    return steps_NE.to(torch.int8).numpy(), scale_N.numpy()


def from_stored(numbers_E: Array, dtype: str, scale: float | None = None) -> Tensor:
    """Return an embedding (E): in bf16 if it is stored so, else in fp32. int8 embeddings need their scale."""
    copy = numbers_E.copy()  # what is read from a file cannot be written to
    if dtype == "bf16":
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16)
    x_E = torch.from_numpy(copy).float()
    return x_E if scale is None else x_E * scale
