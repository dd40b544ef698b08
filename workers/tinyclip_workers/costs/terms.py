"""The terms of a tower's latency: the amounts of work that one call does, counted from the layout alone.

A latency is the sum of all terms, each times its milliseconds per unit on some hardware. Terms are linear in what masks remove
(channels, heads and MLP units of each layer, and products of channels with either), so a fitted cost is a constraint for masks
too (`student_cost`).

Shapes: B batch, P patches, T tokens (of a text: the whole context), d width, H_l heads and m_l MLP units of layer l, h width of a
head, E embedding size. A product of (M, K) with weights (K, N) takes M*K*N multiply-adds.
"""

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout

from tinyclip_workers.model.towers import RESNET_STEM

Family: TypeAlias = Literal["vit", "resnet", "text"]
Tower: TypeAlias = Literal["image", "text"]
Terms: TypeAlias = dict[str, float]

ALIGNMENT = 16
"""fp32 values in a vector of 512 bits."""


@dataclass
class _TransformerTerms:
    calls: float = 1
    """1: what every call takes, as the conversion of its inputs."""
    blocks: float = 0
    """Layers; one of which only attention or only the MLP remains counts as a half, and one with neither as nothing."""
    own_blocks: float = 0
    """The same of our own towers only; uniform layouts are computed by open_clip's, which call torch in another way."""
    own_values: float = 0
    """Values of queries, keys, values and outputs in our own towers: 4*B*T*H_l*h."""
    fused_blocks: float = 0
    """Layers of open_clip's towers with an even number of heads, which torch has a kernel for."""
    unfused_blocks: float = 0
    """Layers of open_clip's towers with an odd number of heads."""
    unfused_values: float = 0
    """Values of queries, keys, values and outputs in these."""
    stem_products: float = 0
    """Multiply-adds of the patch embedding: B*P * 3*patch^2 * d."""
    products: float = 0
    """Multiply-adds of products with weights: B*T*d*(4*H_l*h + 2*m_l) of each layer, B*d*E of the projection."""
    weights: float = 0
    """Weights that are read, whatever the batch: they outweigh the multiply-adds where a product has few rows."""
    attention: float = 0
    """Multiply-adds of queries with keys and of weights with values: 2*B*T^2*H_l*h."""
    channel_values: float = 0
    """Values of the residual stream that branches normalise and add to: B*T*d of each branch."""
    unaligned_values: float = 0
    """The same of widths that are no multiple of the processor's vectors: kernels pad them, above all those of int8."""
    head_values: float = 0
    """Values of queries, keys, values and outputs: 4*B*T*H_l*h."""
    unit_values: float = 0
    """Values that pass the activation function: B*T*m_l."""

    def __post_init__(self) -> None:
        self.branch_values = 0.0

    def add_product(self, rows: int, inputs: int, outputs: int) -> None:
        self.products += rows * inputs * outputs
        self.weights += inputs * outputs

    def add_blocks(self, tower: ImageLayout | TextLayout, batch: int, tokens: int, library: bool) -> None:
        assert tower.heads is not None
        assert tower.mlp is not None
        rows, width = batch * tokens, tower.width
        for heads, units in zip(tower.heads, tower.mlp, strict=True):
            inner, branches = heads * tower.head_width, (heads > 0) + (units > 0)
            self.blocks += branches / 2
            if not library:
                self.own_blocks += branches / 2
                self.own_values += 4 * rows * inner
            elif heads % 2:
                self.unfused_blocks += branches / 2
                self.unfused_values += 4 * rows * inner
            else:
                self.fused_blocks += branches / 2
            self.channel_values += rows * width * branches
            self.branch_values += rows * width * branches
            self.unaligned_values += rows * width * branches if width % ALIGNMENT else 0
            self.add_product(rows, width, 4 * inner + 2 * units)
            self.attention += 2 * rows * tokens * inner
            self.head_values += 4 * rows * inner
            self.unit_values += rows * units


@dataclass
class _ResnetTerms:
    calls: float = 1
    convolutions: float = 0
    """Convolutions, each with its batch norm and ReLU."""
    stem_values: float = 0
    """Values that the convolutions before the first stage compute: few channels of large images."""
    products_1x1: float = 0
    """Multiply-adds of 1x1 convolutions."""
    products_3x3: float = 0
    """Multiply-adds of 3x3 convolutions."""
    weights: float = 0
    """Weights that are read, whatever the batch."""
    values: float = 0
    """Values that convolutions write, which batch norm and ReLU read and write again."""
    pool_products: float = 0
    """Multiply-adds of the attention pooling."""
    pool_attention: float = 0
    """The same of its queries with keys and of weights with values."""

    def add_convolution(self, batch: int, side: int, inputs: int, outputs: int, size: int) -> None:
        rows, kernel = batch * side * side, size * size
        if size == 1:
            self.products_1x1 += rows * inputs * outputs
        else:
            self.products_3x3 += rows * inputs * outputs * kernel
        self.weights += inputs * outputs * kernel
        self.values += rows * outputs
        self.convolutions += 1


def family_of(layout: Layout, tower: Tower) -> Family:
    """Return the family whose terms a tower has."""
    return "text" if tower == "text" else layout.image.kind


def term_names(family: Family) -> tuple[str, ...]:
    """Return the names of a family's terms, in the order in which `count_terms` has them."""
    return tuple(field.name for field in fields(_ResnetTerms if family == "resnet" else _TransformerTerms))


def count_terms(layout: Layout, tower: Tower, batch: int, *, library: bool, any_width: bool = False) -> Terms:
    """Count the terms of one call of a tower; texts fill the context.

    `library`: True if transformers are computed by open_clip's modules, as the torch engine does it with uniform layouts.
    `any_width`: True if widths count as unaligned even if they are not, so that all terms are linear in them.
    """
    terms: _TransformerTerms | _ResnetTerms
    if tower == "text":
        terms = _text_terms(layout, batch, library)
    else:
        terms = _resnet_terms(layout, batch) if layout.image.kind == "resnet" else _vit_terms(layout, batch, library)
    if any_width and isinstance(terms, _TransformerTerms):
        terms.unaligned_values = terms.branch_values
    return {field.name: float(getattr(terms, field.name)) for field in fields(terms)}


def _text_terms(layout: Layout, batch: int, library: bool) -> _TransformerTerms:
    """Causal attention saves nothing; embeddings of tokens are read, which is a small part of `channel_values`."""
    terms, text = _TransformerTerms(), layout.text
    terms.channel_values += batch * text.context_length * text.width
    terms.add_blocks(text, batch, text.context_length, library)
    terms.add_product(batch, text.width, layout.embed_dim)
    return terms


def _vit_terms(layout: Layout, batch: int, library: bool) -> _TransformerTerms:
    terms, image = _TransformerTerms(), layout.image
    assert image.patch_size is not None
    patches = (image.image_size // image.patch_size) ** 2
    tokens = patches + (image.pool is None)
    terms.stem_products += batch * patches * 3 * image.patch_size**2 * image.width
    terms.weights += 3 * image.patch_size**2 * image.width
    terms.channel_values += batch * tokens * image.width
    terms.add_blocks(image, batch, tokens, library)
    if image.pool is None:
        terms.add_product(batch, image.width, layout.embed_dim)
        return terms
    pool, inner = image.pool, image.pool.heads * image.head_width
    terms.blocks += 1
    terms.add_product(batch * patches, image.width, 2 * inner)  # keys and values
    terms.attention += 2 * batch * patches * inner  # of one query
    terms.head_values += 2 * batch * patches * inner
    terms.unit_values += batch * pool.mlp
    terms.add_product(batch, pool.width, inner + 2 * pool.mlp + layout.embed_dim)
    return terms


def _resnet_terms(layout: Layout, batch: int) -> _ResnetTerms:
    """Count for open_clip's ModifiedResNet: see `model.summary._resnet_macs`."""
    terms, image = _ResnetTerms(), layout.image
    width, side = image.width, image.image_size // 2
    for inputs, outputs in zip((3, width // 2, width // 2), (width // 2, width // 2, width), strict=True):
        terms.add_convolution(batch, side, inputs, outputs, 3)
    assert terms.convolutions == RESNET_STEM
    terms.stem_values, channels = terms.values, width
    side //= 2
    for stage, bottlenecks in enumerate(image.layers):
        planes = width * 2**stage
        for bottleneck in range(bottlenecks):
            terms.add_convolution(batch, side, channels, planes, 1)
            terms.add_convolution(batch, side, planes, planes, 3)
            side //= 2 if stage > 0 and bottleneck == 0 else 1
            terms.add_convolution(batch, side, planes, 4 * planes, 1)
            if bottleneck == 0:
                terms.add_convolution(batch, side, channels, 4 * planes, 1)
            channels = 4 * planes
    tokens = side * side + 1
    terms.pool_products = batch * tokens * channels * (3 * channels + layout.embed_dim)
    terms.weights += channels * (3 * channels + layout.embed_dim)
    terms.pool_attention = 2 * batch * tokens * tokens * channels
    return terms
