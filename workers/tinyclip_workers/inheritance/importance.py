"""How much a model's similarities depend on each attention head and MLP unit (Fisher information of gates).

A gate of 1 is put on every head and unit, as masks do. The score of a unit is the expected squared derivative of the
log-likelihood with respect to its gate, which to second order is twice the divergence that its removal causes (LeCun et al. 1990,
Optimal Brain Damage; Theis et al. 2018, arXiv 1801.05787, for the Fisher information). The likelihood is that of the model's
own affinities: partners are drawn from its softmax, so the score does not vanish where a student equals its teacher, and needs
no labels. Scores have one unit across layers, groups and towers: nats of a pair.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyclip_workers.inheritance.streams import Pairs
from tinyclip_workers.model.masked import full_mask
from tinyclip_workers.model.masks import TOWERS, Mask, Tower
from tinyclip_workers.model.towers import Clip, normalized

DRAWS = 4
"""Partners drawn for each image and text: backward passes are cheap beside the forward pass that they share."""


def unit_importance(clip: Clip, pairs: Pairs, seed: int = 0) -> dict[Tower, Mask]:
    """Return the score of every unit of the transformer towers, in the form of a mask: larger is more important.

    Weights are not changed. The same seed and pairs give the same scores.
    """
    towers = [tower for tower in TOWERS if tower == "text" or clip.layout.image.kind == "vit"]
    masks = {tower: full_mask(clip.layout, tower) for tower in towers}
    gates = [gate.to(clip.logit_scale.device).requires_grad_() for mask in masks.values() for gate in mask.leaves()]
    scores = [torch.zeros_like(gate) for gate in gates]
    for gradients in likelihood_gradients(clip, pairs, gates, _in_form_of(masks, gates), seed):
        for score, gradient in zip(scores, gradients, strict=True):
            score += gradient.square()
    return _in_form_of(masks, scores)


def likelihood_gradients(
    clip: Clip, pairs: Pairs, tensors: Sequence[Tensor], masks: Mapping[Tower, Mask] | None = None, seed: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """Yield gradients of the log-likelihood of drawn partners with respect to some tensors, DRAWS for each part of the pairs."""
    generator, masks = torch.Generator().manual_seed(seed), masks or {}
    for part in pairs.parts():
        image_BD = normalized(clip.encode_image(part.images_NCHW, masks.get("image")))
        text_BD = normalized(clip.encode_text(part.tokens_NT, masks.get("text")))
        logits_BB = clip.logit_scale.detach().exp() * image_BD @ text_BD.T
        for _ in range(DRAWS):
            # A block that an earlier cut has left without heads or units does not use its gates, which are empty.
            loss = _drawn_loss(logits_BB, generator)
            yield torch.autograd.grad(loss, tensors, retain_graph=True, materialize_grads=True)


def _drawn_loss(logits_BB: Tensor, generator: torch.Generator) -> Tensor:
    """Return InfoNCE with partners drawn from the model's own affinities."""
    directions = (logits_BB, logits_BB.T)
    drawn = [torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=generator)[:, 0] for logits in directions]
    losses = [F.cross_entropy(logits, partner.to(logits.device)) for logits, partner in zip(directions, drawn, strict=True)]
    return torch.stack(losses).mean()


def _in_form_of(masks: dict[Tower, Mask], flat: list[Tensor]) -> dict[Tower, Mask]:
    """Return masks with other numbers, from a list of all vectors."""
    numbers, formed = iter(flat), {}
    for tower, mask in masks.items():
        rows = [next(numbers) for _ in mask.leaves()]
        layers = len(mask.heads)
        formed[tower] = Mask(rows[0], tuple(rows[1 : 1 + layers]), tuple(rows[1 + layers :]))
    return formed
