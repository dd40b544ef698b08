"""Weight averaging: an exponential moving average of the student's weights, exported if it agrees better with the teacher.

The running statistics of batch normalisation are averaged like the weights that they belong to; their counter is copied.
"""

import copy

import torch
from torch import Tensor, nn

from tinyclip_workers.model.towers import Model

UPDATES = "updates"
"""The name of the number of updates among the tensors of a checkpoint."""


class WeightAverage:
    """The moving average of a model's weights, in their own type (fp32), and of its statistics."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start with the model's weights; `decay` is the share of the average that an update keeps, at most."""
        self._decay, self._updates = decay, 0
        buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
        stored = model.state_dict().keys()
        live = {name: tensor for name, tensor in (dict(model.named_parameters()) | buffers).items() if name in stored}
        self._live = list(live.values())
        self._average = {name: tensor.detach().clone() for name, tensor in live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the model's weights. The decay grows with the updates, as the first weights should soon be forgotten."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(list(self._average.values()), self._live, 1 - decay)
        self._updates += 1

    def averaged(self, model: Model) -> Model:
        """Return a copy of the model with the averaged weights."""
        other = copy.deepcopy(model)
        other.load_state_dict(model.state_dict() | self._average)
        return other

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint."""
        return {**self._average, UPDATES: torch.tensor(self._updates)}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor] | None) -> None:
        """Continue from `tensors()`; `None`: start again with the model's weights."""
        self._updates = 0 if tensors is None else int(tensors[UPDATES])
        for (name, average), live in zip(self._average.items(), self._live, strict=True):
            average.copy_(live if tensors is None else tensors[name])
