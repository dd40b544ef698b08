"""A fake of `python -m tinyclip_workers.importing.convert` without the engine. The preset selects its behaviour."""

import hashlib
import json
import os
import sys
import time

LAYOUT = {
    "embed_dim": 32,
    "image": {
        "kind": "vit", "image_size": 64, "width": 64, "layers": [1], "head_width": 32, "patch_size": 16,
        "heads": [2], "mlp": [256],
    },
    "text": {
        "context_length": 16, "vocab_size": 100, "width": 64, "layers": 1, "head_width": 32, "heads": [2], "mlp": [256],
    },
}  # fmt: skip


def check(question: dict) -> dict:
    behaviour = question["options"]["preset"]
    if behaviour == "dies":
        os._exit(9)
    if behaviour == "hangs":
        time.sleep(60)
    try:
        with open(question["source"], "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        return {"errors": [{"pointer": question["pointer"], "value": question["source"], "message": str(error)}]}
    if behaviour == "refused" or content == b"hostile":
        error = {"pointer": question["pointer"], "value": question["upload_name"], "message": "was not opened"}
        return {"errors": [error]}
    return {"checked": {}}


def write(place: dict, question: dict) -> dict:
    with open(question["source"], "rb") as file:
        content = file.read()
    folder = os.path.join(place["artifacts"], "models", place["name"], str(place["version"]))
    os.makedirs(folder)
    with open(os.path.join(folder, "weights.safetensors"), "wb") as file:
        file.write(content)
    if question["options"]["preset"] == "dies-writing":
        os._exit(9)
    if question["options"]["preset"] == "full":
        return {"failed": "[Errno 28] No space left on device"}
    digest = hashlib.sha256(content).hexdigest()
    document = {
        "name": place["name"], "version": place["version"], "params": {"image": 1, "text": 1, "text_without_embedding": 1},
        "macs": 1, "embed_dim": 32, "image_size": 64, "context_length": 16, "layout": LAYOUT,
        "lineage": {"import": {"file": question["upload_name"], "options": question["options"], "source": question["source"]}},
        "files": [{"path": "weights.safetensors", "bytes": len(content), "sha256": digest}], "created_at": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    with open(os.path.join(folder, "model.json"), "w") as file:
        json.dump(document, file)
    return {"document": document}


if __name__ == "__main__":
    question = json.loads(sys.stdin.readline())
    print(json.dumps(check(question)), flush=True)
    line = sys.stdin.readline()
    if line:
        print(json.dumps(write(json.loads(line), question)), flush=True)
