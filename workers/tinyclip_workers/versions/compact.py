"""Make a small copy of a model version, for a repository: `python -m tinyclip_workers.versions.compact VERSION_FOLDER TARGET`.

The copy keeps the token embeddings of the texts that the model was trained and evaluated with; see `model.weights`.
It can be a `local-dir:` teacher. Plain open_clip cannot read it.
"""

import argparse
import json
from collections.abc import Iterable

from tinyclip.artifacts.paths import MODEL_DOCUMENT
from tinyclip.schemas import ModelVersion

from tinyclip_workers.evaluation.labels import task_lines
from tinyclip_workers.model.files.folders import COMPACT_FILE, CONFIG_FILE, LAYOUT_FILE, PREPROCESS_FILE, find_folder
from tinyclip_workers.model.files.weights import load_state_dict, save_compact
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.runtime.filesystems import open_store
from tinyclip_workers.versions.lineage import training_spec
from tinyclip_workers.versions.texts import job_texts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="folder of a model version, with model.json")
    parser.add_argument("target", help="folder to write")
    parser.add_argument("--texts", action="append", default=[], help="file with more texts to support, one on each line")
    arguments = parser.parse_args(argv)
    version = ModelVersion.model_validate_json(open_store(arguments.source).read_bytes(MODEL_DOCUMENT))
    # An imported version has no job: --texts gives all of its texts.
    spec = training_spec(version)
    texts = [*job_texts(spec)] if spec is not None else []
    for file in arguments.texts:
        texts += task_lines(file)
    rows = compact_folder(arguments.source, arguments.target, texts)
    print(f"{arguments.target}/{COMPACT_FILE}: {rows} of {version.layout.vocab_size} tokens kept")


def compact_folder(source: str, target: str, texts: Iterable[str]) -> int:
    """Write a compact copy of a model folder that supports these texts. Return the number of tokens kept.

    Raises as `find_folder` and `save_compact`.
    """
    found, store = find_folder(source), open_store(target)
    tokenize = make_tokenizer(found.layout, found.tokenizer)
    used_tokens = {int(token) for text in set(texts) for token in tokenize(text)[0].unique()}
    save_compact(store, COMPACT_FILE, load_state_dict(found.weights()), used_tokens)
    store.write_bytes(LAYOUT_FILE, (json.dumps(found.layout.model_dump(mode="json"), indent=1) + "\n").encode())
    for name, content in (found.tokenizer.to_files() if found.tokenizer is not None else {}).items():
        store.write_bytes(name, content)
    config = CONFIG_FILE if open_store(source).exists(CONFIG_FILE) else PREPROCESS_FILE
    store.write_bytes(config, open_store(source).read_bytes(config))
    return len(used_tokens)


if __name__ == "__main__":
    main()
