"""Documents of users and workers."""

from typing import Any

VIT = {"kind": "vit", "image_size": 64, "width": 64, "layers": [2], "head_width": 32, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 100, "width": 64, "layers": 1, "head_width": 32}
LAYOUT = {
    "embed_dim": 32,
    "image": {**VIT, "heads": [2, 2], "mlp": [256, 256]},
    "text": {**TEXT, "heads": [2], "mlp": [256]},
}
STUDENT = {"image_params": 1000, "text_params": 900, "text_params_without_embedding": 300, "macs": 5000, "layout": LAYOUT}
STEPS = 10


def spec(**changes: Any) -> dict[str, Any]:
    """Return a small valid spec of two stages of STEPS steps."""
    return {
        "name": "emoji-half",
        "labels": {"team": "search"},
        "teacher": {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
        "data": {"train": {"shards": "/data/{00..03}.tar"}},
        "stages": [
            {"name": name, "student": {"image": {"layers": 2}, "text": {"layers": 1}}, "train": {"steps": STEPS}}
            for name in ("three-quarters", "half")
        ],
        **changes,
    }


def model_document(name: str, version: int, **changes: Any) -> dict[str, Any]:
    """Return the `model.json` of a worker."""
    return {
        "name": name, "version": version,
        "params": {"image": 1000, "text": 900, "text_without_embedding": 300}, "macs": 5000, "embed_dim": 32, "image_size": 64,
        "context_length": 16, "layout": LAYOUT,
        "evaluation": {"emoji": {"student": {"top1": 0.4}, "teacher": {"top1": 0.5}}},
        "teacher": "ViT-B-32", "lineage": {"code": "0.1.0"},
        "files": [{"path": "open_clip_model.safetensors", "bytes": 10, "sha256": "ab" * 32}],
        "created_at": "2026-01-02T03:04:05Z",
        **changes,
    }
