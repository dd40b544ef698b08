"""How a model's towers are run: texts only as far as the longest one of the batch goes.

Shapes: B batch, T tokens of the context, L tokens of the longest text, d width, E embedding size.
"""

import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP  # type: ignore[import-untyped]
from torch import Tensor, nn

SHAPES_ON_CUDA = 8
"""On CUDA, lengths are rounded up to a multiple of this: fewer kernels to choose and graphs to keep."""


def encode_text(model: CLIP | CustomTextCLIP, tokens_BT: Tensor) -> Tensor:
    """Text embeddings (B, E), not normalised: what `model.encode_text` gives, without work on the padding.

    Exact where attention is causal and the embedding is read at the end-of-text token (the largest id, its first place):
    nothing there depends on what follows. Text towers of another kind see the whole context.
    """
    if not (isinstance(model, CLIP) and model.text_pool_type == "argmax" and model.attn_mask is not None):
        whole: Tensor = model.encode_text(tokens_BT)
        return whole
    tokens_BL = tokens_BT[:, : longest_text(tokens_BT)]
    length = tokens_BL.shape[1]
    dtype = model.transformer.get_cast_dtype()
    x_BLd = model.token_embedding(tokens_BL).to(dtype) + model.positional_embedding[:length].to(dtype)
    x_BLd = model.ln_final(model.transformer(x_BLd, attn_mask=model.attn_mask[:length, :length]))
    x_Bd: Tensor = x_BLd[torch.arange(len(tokens_BL), device=tokens_BL.device), tokens_BL.argmax(dim=1)]
    return _project(x_Bd, model.text_projection)


def longest_text(tokens_BT: Tensor) -> int:
    """Tokens up to and with the last end-of-text of the batch."""
    length = int(tokens_BT.argmax(dim=1).max()) + 1
    if tokens_BT.is_cuda:
        length = -(-length // SHAPES_ON_CUDA) * SHAPES_ON_CUDA
    return min(length, tokens_BT.shape[1])


def _project(x_Bd: Tensor, projection: nn.Linear | Tensor | None) -> Tensor:
    if projection is None:
        return x_Bd
    if isinstance(projection, nn.Linear):
        return F.linear(x_Bd, projection.weight, projection.bias)
    return x_Bd @ projection
