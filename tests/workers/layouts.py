"""open_clip models and our layouts from the small configs of the fixtures."""

from typing import Any

from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout

Config = dict[str, Any]


def open_clip_model(config: Config, quick_gelu: bool = False) -> CLIP:
    vision = {name: value for name, value in config["vision_cfg"].items() if value is not None}
    return CLIP(config["embed_dim"], CLIPVisionCfg(**vision), CLIPTextCfg(**config["text_cfg"]), quick_gelu)


def layout_of(config: Config) -> Layout:
    vision, text = config["vision_cfg"], config["text_cfg"]
    head_width = vision.get("head_width", 64)
    image = {"image_size": vision["image_size"], "width": vision["width"], "head_width": head_width}
    if isinstance(vision["layers"], list):
        image |= {"kind": "resnet", "layers": vision["layers"]}
    else:
        layers = vision["layers"]
        image |= {
            "kind": "vit", "layers": [layers], "patch_size": vision["patch_size"],
            "heads": [vision["width"] // head_width] * layers, "mlp": [_units(vision)] * layers,
        }
    return Layout(
        embed_dim=config["embed_dim"],
        image=ImageLayout(**image),
        text=TextLayout(
            context_length=text["context_length"], vocab_size=text["vocab_size"], width=text["width"], layers=text["layers"],
            head_width=text["width"] // text["heads"], heads=[text["heads"]] * text["layers"],
            mlp=[_units(text)] * text["layers"],
        ),
    )


def _units(tower: dict[str, Any]) -> int:
    return int(tower["width"] * tower.get("mlp_ratio", 4))
