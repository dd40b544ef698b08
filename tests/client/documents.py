"""Documents of the API."""

import copy
import hashlib
from typing import Any

JSON = dict[str, Any]

TIMES = {"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"}

LAYOUT: JSON = {
    "embed_dim": 64,
    "image": {
        "kind": "vit", "image_size": 32, "width": 64, "layers": [2], "head_width": 32, "patch_size": 8,
        "heads": [2, 2], "mlp": [256, 256],
    },
    "text": {
        "context_length": 16, "vocab_size": 100, "width": 32, "layers": 2, "head_width": 32, "heads": [1, 1], "mlp": [128, 128],
    },
}

JOB: JSON = {
    "id": "job_1", "name": "shapes", "labels": {}, "project": "default", "priority": 0, "spec_version": 1,
    "spec": {
        "name": "shapes",
        "teacher": {"model": "ViT-B-32", "pretrained": "openai"},
        "data": {"train": {"shards": "/data/{0..3}.tar"}},
        "stages": [{"name": "half", "student": {"image": {"layers": 6}}, "train": {"steps": 100}}],
    },
    "state": "queued",
    "progress": {
        "stage": 0, "stages": 1, "step": 0, "steps": 100, "fraction": 0.0, "samples_seen": 0,
        "pairs_per_second": None, "eta_seconds": None,
    },
    "stages": [
        {"index": 0, "name": "half", "state": "pending", "inherit": "manual", "student": None, "metrics": {}, "evaluation": {}},
    ],
    "attempt": 0, "ray_submission_id": None, "model": None, "error": None, "etag": "1.1",
    "created_at": "2026-01-02T03:04:05.000Z", "started_at": None, "finished_at": None,
}

DEPLOYMENT: JSON = {
    "name": "shapes", "model": "shapes@1", "state": "ready", "endpoint": "http://serve:8322/shapes",
    "replicas": {"min": 1, "max": 1}, "engine": "torch", "message": "", **TIMES,
}  # fmt: skip

WEIGHTS = "open_clip_model.safetensors"
FILES = {"open_clip_config.json": b'{"model_cfg": {}}', WEIGHTS: bytes(range(256)) * 40, "notes/card.md": b"# Shapes"}


def student(image: int, text: int, macs: int) -> JSON:
    """Return a `StudentSummary`."""
    return {
        "image_params": image, "text_params": 2 * text, "text_params_without_embedding": text, "macs": macs, "layout": LAYOUT,
    }


def job(**changes: Any) -> JSON:
    """Return a job with `changes`; `stage` and `progress` are merged into its first stage and its progress."""
    document = copy.deepcopy(JOB)
    document["stages"][0].update(changes.pop("stage", {}))
    document["progress"].update(changes.pop("progress", {}))
    return document | changes


def event(number: int, type: str, message: str = "", **data: Any) -> JSON:
    return {
        "id": number, "job": "job_1", "type": type, "attempt": 1, "stage": None, "message": message, "data": data,
        "created_at": "2026-01-02T03:04:05.000Z",
    }


def version(files: dict[str, bytes] = FILES, **changes: Any) -> JSON:
    """Return version 1 of the model `shapes`, with the given files."""
    listed = [
        {"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    ]
    return {
        "name": "shapes", "version": 1, "aliases": ["best"],
        "params": {"image": 2_500_000, "text": 1_300_000, "text_without_embedding": 1_200_000},
        "macs": 310_000_000, "embed_dim": 64, "image_size": 32, "context_length": 16, "layout": LAYOUT, "job": "job_1",
        "evaluation": {"val": {"student": {"top1": 0.61}, "teacher": {"top1": 0.65}}},
        "files": listed, "created_at": "2026-01-02T03:04:05Z", **changes,
    }  # fmt: skip


def dataset(**changes: Any) -> JSON:
    """Return a data set with one version."""
    return {
        "name": "pairs", "state": "ready", "latest": 1, "aliases": {"best": 1}, "versions": [1], "source": {"shards": "/d/0.tar"},
        "progress": 0.5, **TIMES, **changes,
    }  # fmt: skip


def dataset_version(**changes: Any) -> JSON:
    return {
        "name": "pairs", "version": 1, "aliases": ["best"], "samples": 1200, "pairs": 1100, "shards": 2, "bytes": 3_400_000,
        "digest": "ab" * 32, "source": {"shards": ["/d/0.tar", "/d/1.tar"], "caption_key": "json.captions"}, "holdout": 0.05,
        "compressed": True, "findings": {"shifted_captions": 1100, "small_images": 240},
        "created_at": "2026-01-02T03:04:05Z", **changes,
    }  # fmt: skip


def finding(code: str, **changes: Any) -> JSON:
    return {
        "code": code, "severity": "warning", "count": 240, "share": 0.2, "message": f"{code} found.", "remedy": f"Remove {code}.",
        "examples": [{"key": "a/1", "shard": "/d/0.tar", "detail": "20 px"}], **changes,
    }  # fmt: skip


def dataset_report(**changes: Any) -> JSON:
    sides = {"min": 20, "p5": 30, "median": 200, "p95": 400, "max": 640}
    return {
        "samples": 1200, "usable": 1150,
        "findings": [
            finding("shifted_captions", severity="error", count=1100, share=1.0, estimated=True, examples=[]),
            finding("small_images"), finding("urls", severity="info"), finding("languages", severity="info"),
        ],
        "caption_stats": {
            "captions": 2300, "per_sample": 2.0, "characters": {"min": 3, "mean": 21.5, "p95": 40, "max": 90}, "distinct": 2100,
            "languages": {"en": 2200, "de": 100},
        },
        "image_sizes": {"width": sides, "height": sides, "smaller_than_input": 0.21},
        "languages": {"en": 0.98, "de": 0.02},
        "agreement": {
            "teacher": "ViT-B-32/openai", "pairs": 512, "auc": 0.5123, "true_mean": 0.1801, "shuffled_mean": 0.1799,
            "bins": [-0.1, 0.0, 0.1, 0.2, 0.3], "true_counts": [0, 1, 8, 4], "shuffled_counts": [1, 8, 4, 0],
        },
        **changes,
    }  # fmt: skip


def sample(number: int, **changes: Any) -> JSON:
    return {
        "number": number, "key": f"a/{number}", "shard": "/d/0.tar", "offset": 0, "length": 1024, "width": 64, "height": 48,
        "captions": ["a cat", "a small cat"], "use": "training", **changes,
    }  # fmt: skip


def reinforcement(**changes: Any) -> JSON:
    return {
        "id": "reinf_1", "dataset": "pairs", "version": 1, "state": "succeeded", "teachers": ["ViT-B-32/openai"],
        "augmentations": 5, "augment": {}, "captions": "all", "dtype": "bf16", "views": 5500, "texts": 2100, "bytes": 12_000_000,
        "progress": 0.5, "message": "", **TIMES, **changes,
    }  # fmt: skip


PROBLEM: JSON = {
    "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "code": "invalid_spec", "request_id": "req_1",
    "detail": "/stages/0/student/image/layers: deeper", "retryable": False,
    "errors": [
        {
            "pointer": "/stages/0/student/image/layers", "value": 40,
            "message": "deeper than the 12 layers it inherits from; use at most 12",
        }
    ],
}


def problem(status: int, detail: str, *, code: str = "some_code", **more: Any) -> JSON:
    return {"type": "about:blank", "title": "Some title", "status": status, "detail": detail, "code": code, **more}


def page(*items: JSON, next_page_token: str | None = None) -> JSON:
    return {"items": list(items), "next_page_token": next_page_token}
