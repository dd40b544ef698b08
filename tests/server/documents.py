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


def dataset_document(name: str, version: int, **changes: Any) -> dict[str, Any]:
    """Return the `dataset.json` of a worker."""
    return {
        "name": name, "version": version, "samples": 100, "pairs": 90, "shards": 2, "bytes": 123_456, "digest": "cd" * 32,
        "source": {"shards": "/data/{00..01}.tar"}, "holdout": 0.05,
        "caption_stats": {
            "captions": 100, "per_sample": 1.0, "characters": {"min": 3, "mean": 9, "p95": 20, "max": 30}, "distinct": 95,
        },
        "image_sizes": {
            "width": {"min": 10, "p5": 20, "median": 60, "p95": 90, "max": 100},
            "height": {"min": 10, "p5": 20, "median": 60, "p95": 90, "max": 100}, "smaller_than_input": 0.25,
        },
        "findings": {"duplicate_captions": 5}, "created_at": "2026-01-02T03:04:05Z", **changes,
    }  # fmt: skip


def dataset_report(**changes: Any) -> dict[str, Any]:
    """Return the `report.json` of a worker."""
    finding = {
        "code": "duplicate_captions", "severity": "warning", "count": 5, "share": 0.05, "message": "5 captions repeat others",
        "remedy": "remove them", "examples": [{"key": "a", "shard": "/data/00.tar", "detail": "a cat"}],
    }
    return {"samples": 100, "usable": 95, "findings": [finding], "languages": {"en": 1.0}, **changes}
