"""Small random models whose redundant parts are known, and pairs to calibrate by."""

from collections.abc import Sequence

import torch
from tinyclip.schemas.layouts import ImageLayout, Layout, PoolLayout, TextLayout
from tinyclip_workers.inheritance.streams import Pairs
from tinyclip_workers.inheritance.students import Calibration, embedding_targets, inherit_by_importance
from tinyclip_workers.model.towers import Clip, normalized, trims_padding
from torch import Tensor, nn

VOCABULARY, CONTEXT = 60, 10


def vit_layout(width: int = 32, layers: int = 3, heads: int = 4, mlp: int = 48) -> Layout:
    """A ViT and a text tower of equal sizes; heads are 8 wide."""
    blocks = {"heads": [heads] * layers, "mlp": [mlp] * layers, "width": width, "head_width": 8}
    image = ImageLayout(kind="vit", image_size=32, patch_size=8, layers=[layers], **blocks)
    text = TextLayout(context_length=CONTEXT, vocab_size=VOCABULARY, layers=layers, **blocks)
    return Layout(embed_dim=12, image=image, text=text)


def siglip_layout(width: int = 32, layers: int = 3, heads: int = 4, mlp: int = 48) -> Layout:
    """The same with attention pooling of images and a bidirectional text tower."""
    layout = vit_layout(width, layers, heads, mlp)
    image = layout.image.model_copy(update={"pool": PoolLayout(width=32, heads=heads, mlp=mlp)})
    return layout.model_copy(update={"image": image, "text": layout.text.model_copy(update={"bidirectional": True})})


def resnet_layout(width: int = 8, text: int = 2, layers: Sequence[int] = (1, 2, 1, 1)) -> Layout:
    image = ImageLayout(kind="resnet", image_size=32, width=width, layers=list(layers), head_width=32)
    return vit_layout(layers=text).model_copy(update={"image": image})


def random_clip(layout: Layout, seed: int = 0) -> Clip:
    """A model whose parameters all have an effect of about the same size, in evaluation mode."""
    torch.manual_seed(seed)
    clip = Clip(layout).eval().requires_grad_(False)
    for name, parameter in clip.named_parameters():
        if "ln_" in name or "pool.ln" in name or "bn" in name or "downsample.1" in name:
            parameter.copy_(torch.randn_like(parameter) * 0.1 + ("weight" in name))
        elif name != "logit_scale":
            nn.init.normal_(parameter, std=0.5 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1)
    for name, buffer in clip.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) * 0.2 + ("var" in name) * 0.1)
    return clip


@torch.no_grad()
def random_resnet(layout: Layout, pairs: Pairs) -> Clip:
    """A random model whose batch norms normalise the pairs' images, so that its embeddings depend on every block."""
    clip = random_clip(layout)
    for module in clip.visual.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    clip.visual.train()(pairs.images_NCHW)
    return clip.eval()


def random_pairs(count: int = 96, seed: int = 1) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCABULARY - 1, (count, CONTEXT), generator=generator)
    ends = torch.randint(3, CONTEXT, (count,), generator=generator)
    tokens[torch.arange(CONTEXT) > ends[:, None]] = 0
    tokens[torch.arange(count), ends] = VOCABULARY - 1
    return Pairs(torch.randn(count, 3, 32, 32, generator=generator), tokens)


def calibration_of(clip: Clip, pairs: Pairs) -> Calibration:
    return Calibration(pairs, embedding_targets(clip, pairs, clip.layout.embed_dim, trims=trims_padding(clip)))


@torch.no_grad()
def embeddings(clip: Clip, pairs: Pairs) -> Tensor:
    """Return normalised embeddings of images, then of texts."""
    return torch.cat([normalized(clip.encode_image(pairs.images_NCHW)), normalized(clip.encode_text(pairs.tokens_NT))])


def distance(one: Clip, other: Clip, pairs: Pairs) -> float:
    """Return the mean squared distance of two models' embeddings."""
    return float((embeddings(one, pairs) - embeddings(other, pairs)).square().sum(1).mean())


def model_of(state: dict[str, Tensor], layout: Layout) -> Clip:
    clip = Clip(layout).eval().requires_grad_(False)
    clip.load_state_dict(state)
    return clip


def by_importance(student: Layout, parent: Clip, pairs: Pairs) -> Clip:
    """Return the student of a layout that is cut out of its parent by these pairs."""
    return model_of(inherit_by_importance(student, parent, calibration_of(parent, pairs)), student)
