"""A model whose channels, heads and MLP units are in a random order: it computes the same, but its leading slices are random."""

import copy
from dataclasses import replace

import torch
from tinyclip_workers.model.files.folders import LoadedModel
from torch import Tensor, nn


@torch.no_grad()
def in_random_order(model: LoadedModel, seed: int) -> LoadedModel:
    """Return a copy of a model with two transformer towers and ordinary blocks."""
    clip, generator = copy.deepcopy(model.model), torch.Generator().manual_seed(seed)
    visual = clip.visual
    order_d = torch.randperm(visual.conv1.out_channels, generator=generator)
    visual.conv1.weight.copy_(visual.conv1.weight[order_d])
    norms = (*visual.ln_pre.parameters(), *visual.ln_post.parameters())
    for stream in (visual.class_embedding, visual.positional_embedding, *norms):
        stream.copy_(stream[..., order_d])
    visual.proj.copy_(visual.proj[order_d])
    _reorder_blocks(visual.transformer, order_d, generator)

    order_d = torch.randperm(clip.token_embedding.embedding_dim, generator=generator)
    for stream in (clip.token_embedding.weight, clip.positional_embedding, *clip.ln_final.parameters()):
        stream.copy_(stream[..., order_d])
    clip.text_projection.copy_(clip.text_projection[order_d])
    _reorder_blocks(clip.transformer, order_d, generator)
    return replace(model, model=clip)


def _reorder_blocks(transformer: nn.Module, order_d: Tensor, generator: torch.Generator) -> None:
    for block in transformer.resblocks:
        for norm in (block.ln_1, block.ln_2):
            for stream in norm.parameters():
                stream.copy_(stream[order_d])
        heads = block.attn.num_heads
        units = torch.arange(len(order_d)).view(heads, -1)[torch.randperm(heads, generator=generator)].flatten()
        rows = torch.cat([units, units + len(order_d), units + 2 * len(order_d)])
        block.attn.in_proj_weight.copy_(block.attn.in_proj_weight[rows][:, order_d])
        block.attn.in_proj_bias.copy_(block.attn.in_proj_bias[rows])
        _reorder(block.attn.out_proj, order_d, units)
        mlp_units = torch.randperm(block.mlp.c_fc.out_features, generator=generator)
        _reorder(block.mlp.c_fc, mlp_units, order_d)
        _reorder(block.mlp.c_proj, order_d, mlp_units)


def _reorder(linear: nn.Linear, out: Tensor, inputs: Tensor) -> None:
    linear.weight.copy_(linear.weight[out][:, inputs])
    linear.bias.copy_(linear.bias[out])
