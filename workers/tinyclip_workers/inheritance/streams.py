"""The calculation of a transformer tower, step by step, on calibration pairs.

Shapes: N calibration pairs, B pairs of a part, T tokens, d width, E embedding size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tinyclip_workers.model.blocks import AttentionPool, Block
from tinyclip_workers.model.masks import Tower
from tinyclip_workers.model.towers import Clip, ImageTower, longest_text, trims_padding

PART = 64
"""Pairs that are processed at once: the memory of activations is theirs; only residual streams are kept for all pairs."""


class Pairs(NamedTuple):
    """Calibration pairs: images as a model receives them (N, C, H, W), and token ids (N, T)."""

    images_NCHW: Tensor
    tokens_NT: Tensor

    def parts(self) -> Iterator["Pairs"]:
        """Split into parts of at most PART pairs."""
        for images, tokens in zip(self.images_NCHW.split(PART), self.tokens_NT.split(PART), strict=True):
            yield Pairs(images, tokens)

    def images(self) -> list[Tensor]:
        """Return the images, in parts."""
        return list(self.images_NCHW.split(PART))

    def texts(self, trims: bool = True) -> list[Tensor]:
        """Return the tokens, in parts; if a model `trims` padding, without that after the longest text."""
        length = longest_text(self.tokens_NT) if trims else self.tokens_NT.shape[1]
        return list(self.tokens_NT[:, :length].split(PART))


@dataclass(frozen=True)
class TransformerTower:
    """One tower of a Clip."""

    clip: Clip
    tower: Tower

    @property
    def blocks(self) -> list[Block]:
        transformer = self.image_tower.transformer if self.tower == "image" else self.clip.transformer
        return [block for block in transformer.resblocks if isinstance(block, Block)]

    def inputs(self, pairs: Pairs) -> list[Tensor]:
        """Return what the tower reads of pairs, in parts."""
        return pairs.images() if self.tower == "image" else pairs.texts(trims_padding(self.clip))

    @property
    def projection(self) -> torch.nn.Parameter:
        """The map to the embedding (d, E), of pooled images (p, E)."""
        return self.image_tower.proj if self.tower == "image" else self.clip.text_projection

    @property
    def pool(self) -> AttentionPool | None:
        """The attention pooling of images; `None` for towers that read one token."""
        return self.image_tower.pool if self.tower == "image" else None

    @property
    def final_norm(self) -> torch.nn.LayerNorm:
        return self.image_tower.ln_post if self.tower == "image" else self.clip.ln_final

    @property
    def image_tower(self) -> ImageTower:
        assert isinstance(self.clip.visual, ImageTower), "a ResNet has no residual stream of tokens"
        return self.clip.visual

    def start(self, inputs: Tensor) -> Tensor:
        """Return the residual stream before the first block (B, T, d)."""
        return self.image_tower.embed(inputs) if self.tower == "image" else self.clip.embed_tokens(inputs)

    def read(self, inputs: Tensor, stream_BTd: Tensor) -> Tensor:
        """Return the tokens that the last LayerNorm reads, one of each pair (B, d), or all for pooled images (B*T, d)."""
        if self.tower == "image":
            return stream_BTd[:, 0] if self.image_tower.pool is None else stream_BTd.flatten(0, 1)
        if self.clip.layout.text.bidirectional:
            return stream_BTd[:, -1]
        return stream_BTd[torch.arange(len(inputs), device=inputs.device), inputs.argmax(dim=1)]

    def summary(self, inputs: Tensor, stream_BTd: Tensor) -> Tensor:
        """Return what is projected to the embedding (B, d), of pooled images (B, p)."""
        if self.tower == "image":
            return self.image_tower.summary(stream_BTd)
        summary_Bd: Tensor = self.final_norm(self.read(inputs, stream_BTd))
        return summary_Bd

    def embedding(self, inputs: Tensor, stream_BTd: Tensor) -> Tensor:
        """Return the embedding (B, E), not normalised."""
        embedding_BE = self.summary(inputs, stream_BTd) @ self.projection
        bias_E = self.clip.text_projection_bias if self.tower == "text" else None
        return embedding_BE if bias_E is None else embedding_BE + bias_E

    def used(self, inputs: Tensor) -> Tensor | None:
        """Return which tokens the embedding can depend on (B, T): those up to the end of the text; `None` for all of them."""
        if self.tower == "image" or self.clip.layout.text.bidirectional:
            return None
        return torch.arange(inputs.shape[1], device=inputs.device) <= inputs.argmax(dim=1, keepdim=True)


def attend(block: Block, stream_BTd: Tensor) -> Tensor:
    """Return the residual stream after a block's attention."""
    added_BTd: Tensor = block.attn(stream_BTd if block.ln_1 is None else block.ln_1(stream_BTd))
    return stream_BTd + added_BTd


def transform(block: Block, stream_BTd: Tensor) -> Tensor:
    """Return the residual stream after a block's MLP."""
    added_BTd: Tensor = block.mlp(stream_BTd if block.ln_2 is None else block.ln_2(stream_BTd))
    return stream_BTd + added_BTd
