"""Token embeddings in fp16 or int8: in graphs, as a module in the place of `nn.Embedding`, and in state dicts.

Rows are rounded in the file only: what is read of them is converted to fp32, in which the text tower computes.

Shapes: V tokens of the vocabulary, B texts, L tokens of a text, d width.
"""

import copy

from tinyclip.schemas import EmbeddingType
from torch import Tensor, nn

from tinyclip_workers.model.files.folders import LoadedModel, own_towers, towers_to_trace
from tinyclip_workers.model.files.weights import EMBEDDING, quantize_rows, quantized_state
from tinyclip_workers.model.towers import Clip, Model


def towers_with_embedding(loaded: LoadedModel, embedding: EmbeddingType) -> Model:
    """Return a model's towers, to trace, with a token embedding of this type. Raises UnsupportedArchitecture."""
    if embedding is EmbeddingType.FP32:
        return towers_to_trace(loaded)
    towers = own_towers(loaded)
    rounded = copy.copy(towers)  # its tensors are the same ones
    rounded._modules = dict(towers._modules)
    rounded.token_embedding = _HalfEmbedding(towers) if embedding is EmbeddingType.FP16 else _Int8Embedding(towers)  # type: ignore[assignment]
    return rounded


def state_with_embedding(loaded: LoadedModel, embedding: EmbeddingType) -> dict[str, Tensor]:
    """Return the state dict of a file with a token embedding of this type: plain, or for int8 that of a compact file."""
    state = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
    if embedding is EmbeddingType.INT8:
        return quantized_state(state)
    return {**state, EMBEDDING: state[EMBEDDING].half()} if embedding is EmbeddingType.FP16 else state


class _HalfEmbedding(nn.Module):
    def __init__(self, towers: Clip) -> None:
        super().__init__()
        self.register_buffer("table_Vd", towers.token_embedding.weight.detach().half())

    def forward(self, tokens_BL: Tensor) -> Tensor:
        rows_BLd: Tensor = self.table_Vd[tokens_BL].float()  # type: ignore[index]
        return rows_BLd


class _Int8Embedding(nn.Module):
    """A gather of int8 rows and of their scales: the whole table is never converted."""

    def __init__(self, towers: Clip) -> None:
        super().__init__()
        values_Vd, scales_V = quantize_rows(towers.token_embedding.weight)
        self.register_buffer("values_Vd", values_Vd)
        self.register_buffer("scales_V1", scales_V[:, None])

    def forward(self, tokens_BL: Tensor) -> Tensor:
        rows_BLd: Tensor = self.values_Vd[tokens_BL].float() * self.scales_V1[tokens_BL]  # type: ignore[index]
        return rows_BLd
