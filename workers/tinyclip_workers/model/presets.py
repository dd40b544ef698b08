"""The published architectures by name (METHOD section 10)."""

import difflib

from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import ImageTower, TextTower

from tinyclip_workers.model.tower_layouts import ImpossibleStudent, image_layout, text_layout


def preset_layout(name: str) -> Layout:
    """A published student or teacher by its name. Raises ImpossibleStudent for a name that is not one."""
    if name in PRESETS:
        return PRESETS[name]
    if name in AUTO_PRESETS:
        raise ImpossibleStudent(
            "preset", name, "was pruned layer by layer: its shape is only in its checkpoint; choose a manual preset"
        )
    close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]}?" if close else ""
    raise ImpossibleStudent("preset", name, f"is not a known preset; {hint} Known: {', '.join(PRESETS)}")


def _published(embed_dim: int, image: ImageTower, text_width: int, text_layers: int) -> Layout:
    text = TextTower(width=text_width, layers=text_layers)
    return Layout(embed_dim=embed_dim, image=image_layout(image, None), text=text_layout(text, None))


PRESETS: dict[str, Layout] = {
    "TinyCLIP-ViT-39M-16-Text-19M": _published(512, ImageTower(patch_size=16, width=512, layers=12), 512, 6),
    "TinyCLIP-ViT-8M-16-Text-3M": _published(512, ImageTower(patch_size=16, width=256, layers=10), 256, 3),
    "TinyCLIP-ViT-61M-32-Text-29M": _published(512, ImageTower(patch_size=32, width=640, layers=12), 512, 9),
    "TinyCLIP-ViT-40M-32-Text-19M": _published(512, ImageTower(patch_size=32, width=512, layers=12), 512, 6),
    "TinyCLIP-ResNet-30M-Text-29M": _published(1024, ImageTower(width=56, layers=(3, 4, 6, 3)), 512, 9),
    "TinyCLIP-ResNet-19M-Text-19M": _published(1024, ImageTower(width=44, layers=(3, 4, 6, 3)), 512, 6),
    "ViT-B-32": _published(512, ImageTower(patch_size=32, width=768, layers=12), 512, 12),
    "ViT-B-16": _published(512, ImageTower(patch_size=16, width=768, layers=12), 512, 12),
    "RN50": _published(1024, ImageTower(width=64, layers=(3, 4, 6, 3)), 512, 12),
}
"""Published uniform architectures and their teachers (METHOD section 10): 224 px, context 77, vocabulary 49408, head width 64."""

AUTO_PRESETS = (
    "TinyCLIP-auto-ViT-63M-32-Text-31M",
    "TinyCLIP-auto-ViT-45M-32-Text-18M",
    "TinyCLIP-auto-ViT-22M-32-Text-10M",
)
"""Published students that were pruned layer by layer; nothing but their checkpoints says what they look like."""
