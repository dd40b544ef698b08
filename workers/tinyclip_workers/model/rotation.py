"""A model whose embeddings are those of another one times an orthogonal matrix: the same similarities in other coordinates.

Shapes: d width, E embedding size.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from tinyclip_workers.model.towers import Model

MATRICES = ("visual.proj", "text_projection")
"""Those (d, E) whose product is an embedding."""
BIASES = ("text_projection_bias",)
"""Those (E,) that are added to such a product."""
LINEAR_LAYERS = ("visual.attnpool.c_proj", "text_projection")
"""Those whose output is an embedding."""


def rotated_model(model: Model, axes_EE: Tensor) -> Model:
    """Return a copy of a model whose embeddings are those of the model times `axes_EE`."""
    other = copy.deepcopy(model)
    other.load_state_dict(rotated_weights(model.state_dict(), axes_EE))
    return other


@torch.no_grad()
def rotated_weights(state: Mapping[str, Tensor], axes_EE: Tensor) -> dict[str, Tensor]:
    """Return the state dict of a model whose embeddings are those of another one times `axes_EE`."""
    rotated = dict(state)
    for name in (*MATRICES, *BIASES):
        if name in state:
            rotated[name] = _product(state[name], axes_EE, like=state[name])
    for name in LINEAR_LAYERS:
        if (weight := f"{name}.weight") in state:
            rotated[weight] = _product(axes_EE.T, state[weight], like=state[weight])
        if (bias := f"{name}.bias") in state:
            rotated[bias] = _product(state[bias], axes_EE, like=state[bias])
    return rotated


def _product(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    return (left.double().cpu() @ right.double().cpu()).to(like)
