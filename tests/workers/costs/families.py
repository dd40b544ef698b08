"""Small layouts of each family of towers."""

from typing import Any

from tinyclip.schemas.layouts import ImageLayout, Layout, PoolLayout, TextLayout


def vit(heads: list[int] | None = None, mlp: list[int] | None = None, width: int = 16, **changes: Any) -> Layout:
    heads, mlp = heads or [2, 2], mlp or [64, 64]
    sizes = {"width": width, "layers": [len(heads)], "head_width": 8, "heads": heads, "mlp": mlp}
    image = ImageLayout.model_validate({"kind": "vit", "image_size": 32, "patch_size": 16, **sizes, **changes})
    return Layout(embed_dim=12, image=image, text=text())


def resnet(layers: list[int] | None = None, width: int = 8) -> Layout:
    image = ImageLayout(kind="resnet", image_size=32, width=width, layers=layers or [1, 1, 1, 1], head_width=32)
    return Layout(embed_dim=12, image=image, text=text())


def siglip(heads: list[int] | None = None, mlp: list[int] | None = None) -> Layout:
    pool = PoolLayout(width=24, heads=2, mlp=40)
    layout = vit(heads or [2, 1], mlp or [64, 30], pool=pool)
    return layout.model_copy(update={"text": text(bidirectional=True), "logit_bias": True})


def text(**changes: Any) -> TextLayout:
    return TextLayout(
        context_length=16, vocab_size=49408, width=16, layers=2, head_width=8, heads=[2, 2], mlp=[64, 64], **changes
    )


LAYOUTS = {
    "vit": vit(),
    "pruned": vit(heads=[2, 0, 1], mlp=[0, 30, 64], width=13),
    "resnet": resnet([2, 1, 1, 2]),
    "siglip": siglip(),
}
