"""Layouts of models: all that is needed to build one without its weights."""

from typing import Literal, TypeAlias

from tinyclip.schemas._base import JSON, Response


class PoolLayout(Response):
    """The attention pooling of SigLIP's ViTs: a learned query reads all patches, and an MLP follows."""

    width: int
    """Of its result, which is projected to the embedding."""
    heads: int
    """Of the tower's `head_width`."""
    mlp: int


class ImageLayout(Response):
    """An image tower. For a ViT `heads` and `mlp` have one entry per block; for a ResNet they are null."""

    kind: Literal["vit", "resnet"]
    image_size: int
    width: int
    layers: list[int]
    """ViT: [blocks]; ResNet: bottlenecks of its four stages."""
    head_width: int
    patch_size: int | None = None
    heads: list[int] | None = None
    mlp: list[int] | None = None
    pool: PoolLayout | None = None
    """Null for towers that read the embedding from a class token, as CLIP's do."""
    tanh_gelu: bool = False


class TextLayout(Response):
    """A text tower: causal and read at the end of a text, as CLIP's, or bidirectional and read at the last token, as SigLIP's."""

    context_length: int
    vocab_size: int
    width: int
    layers: int
    head_width: int
    heads: list[int]
    mlp: list[int]
    bidirectional: bool = False
    """True also for a bias of the projection to the embedding, which SigLIP has."""
    tanh_gelu: bool = False


class Layout(Response):
    """A whole model with towers of our own: a ViT or ResNet, and a transformer for texts."""

    embed_dim: int
    quick_gelu: bool = False
    logit_bias: bool = False
    """True for a model with the bias of the sigmoid loss."""
    image: ImageLayout
    text: TextLayout

    @property
    def image_size(self) -> int:
        return self.image.image_size

    @property
    def context_length(self) -> int:
        return self.text.context_length

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size

    @property
    def is_vit(self) -> bool:
        """True if images are read by a transformer."""
        return self.image.kind == "vit"

    @property
    def is_uniform(self) -> bool:
        """True if open_clip can build it: blocks are equal, and towers are not like SigLIP's, whose sizes are fixed there."""
        return self.has_equal_blocks and not self.is_siglip

    @property
    def has_equal_blocks(self) -> bool:
        """True if all blocks of a tower have one size and heads fill the width."""
        towers: list[ImageLayout | TextLayout] = [self.text] if self.image.kind == "resnet" else [self.image, self.text]
        return all(
            tower.heads and {heads * tower.head_width for heads in tower.heads} == {tower.width}
            and tower.mlp and len(set(tower.mlp)) == 1 and tower.mlp[0] > 0
            for tower in towers
        )

    @property
    def is_siglip(self) -> bool:
        """True for towers like SigLIP's."""
        return self.image.pool is not None or self.text.bidirectional


class Architecture(Response):
    """A model of any other architecture, which a library builds from its configuration."""

    library: Literal["open_clip", "transformers"]
    family: str
    """`SigLIP`, `CoCa`, `ConvNeXt`, …: for people."""
    config: JSON
    """open_clip's `model_cfg`, or the `config.json` of transformers."""
    embed_dim: int
    image_size: int
    context_length: int
    vocab_size: int

    @property
    def is_uniform(self) -> bool:
        """True if open_clip can open the model: as for a `Layout`."""
        return self.library == "open_clip"

    @property
    def is_vit(self) -> bool:
        """True if images are read by a transformer; false for networks of convolutions, and hybrids of both."""
        vision = self.config.get("vision_cfg", {})
        return str(vision.get("timm_model_name", "vit")).startswith(("vit", "eva", "beit"))


AnyLayout: TypeAlias = Layout | Architecture


class Params(Response):
    image: int
    text: int
    text_without_embedding: int


class StudentSummary(Response):
    image_params: int
    text_params: int
    text_params_without_embedding: int
    macs: int
    """Multiply-accumulate operations of one image and one text of full context length."""
    layout: AnyLayout
    estimated: bool = False
    """The target of an automatic stage, whose real layout is determined at its prune step."""
