"""Makes a pulled model small enough for the repository: half precision, and only the tokens that the emoji texts contain.

    tinyclip-client models pull emoji-teacher-resnet teacher
    python examples/emoji/bundle_teacher.py teacher examples/emoji/teachers/resnet
"""

import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tinyclip_workers.model_folder import load_folder
from tinyclip_workers.store import Store
from tinyclip_workers.weights import save_compact

DATA = Path(__file__).parent / "data"
KEPT = ("open_clip_config.json", "layout.json", "evaluation.json")


def main(source: Path, target: Path) -> None:
    teacher = load_folder(str(source))
    tokens = {token for text in texts() for token in teacher.tokenizer(text).flatten().tolist()}
    target.mkdir(parents=True, exist_ok=True)
    save_compact(Store(str(target)), "compact.safetensors", teacher.model.state_dict(), tokens)
    for name in KEPT:
        shutil.copyfile(source / name, target / name)
    print(f"{len(tokens)} tokens, {(target / 'compact.safetensors').stat().st_size / 1e6:.1f} MB")


def texts() -> Iterator[str]:
    """Every caption, keyword and class name of the data set, and the words around class names in its templates."""
    dataset = json.loads((DATA / "dataset.json").read_text())
    for label in dataset["labels"].values():
        yield from (template.format(name) for template in label["templates"] for name in label["classes"])
    for shard in sorted(DATA.glob("*.tar.gz")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".txt"):
                    yield file.read().decode()
                elif file is not None and member.name.endswith(".json"):
                    metadata = json.load(file)
                    yield from [*metadata["captions"], *metadata["keywords"]]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: bundle_teacher.py MODEL_FOLDER TARGET")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
