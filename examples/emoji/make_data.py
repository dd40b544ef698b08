"""Pack the emoji data set into the gzipped WebDataset shards of `data/`.

    python examples/emoji/make_data.py FOLDER [OUT]

FOLDER holds the plain shards (`train-*.tar`, `val-*.tar`) and their `dataset.json`. Images, texts and metadata are kept
byte for byte, in the same order. The tar headers are normalised, the train images are split into shards of equal size
(so that every reader gets the same share), and the shards are gzipped. The same input gives the same output bytes for
one version of zlib.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

SPLITS = {"train": 4, "val": 1}
"""Shards of each split."""

Sample = dict[str, bytes]
"""`{"emojione1-1f6c5.png": …, ".txt": …, ".json": …}`: the files of one key, by file name."""


def main(source: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    dataset = json.loads((source / "dataset.json").read_text())
    counts: dict[str, dict[str, int]] = {}
    splits = {}
    for split, shards in SPLITS.items():
        samples = [s for shard in dataset["splits"][split]["shards"] for s in read_shard(source / shard["file"])]
        if len(samples) != dataset["splits"][split]["samples"]:
            raise SystemExit(f"{split}: dataset.json lists {dataset['splits'][split]['samples']} samples, read {len(samples)}")
        splits[split] = write_split(out, split, samples, shards)
        counts[split] = count_vendors(samples)
    for label in ("group", "subgroup"):
        (out / f"{label}s.txt").write_text("\n".join(dataset["labels"][label]["classes"]) + "\n")
    (out / "dataset.json").write_text(json.dumps(dataset | {"splits": splits}, indent=1, ensure_ascii=False) + "\n")
    (out / "ATTRIBUTION.md").write_text(attribution(dataset, counts))


def read_shard(path: Path) -> Iterator[Sample]:
    sample: Sample = {}
    key = ""
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.partition(".")[0] != key:
                if sample:
                    yield sample
                key, sample = member.name.partition(".")[0], {}
            file = tar.extractfile(member)
            if file is None:
                raise SystemExit(f"{path}: {member.name} is not a plain file")
            sample[member.name] = file.read()
    if sample:
        yield sample


def write_split(out: Path, split: str, samples: list[Sample], shards: int) -> dict[str, object]:
    written = []
    size = -(-len(samples) // shards)
    for number in range(shards):
        share = samples[number * size : (number + 1) * size]
        content = gzip.compress(tar_of(share), compresslevel=9, mtime=0)
        path = out / f"{split}-{number:06d}.tar.gz"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        written.append({"file": path.name, "samples": len(share), "bytes": len(content), "sha256": digest})
    return {"samples": len(samples), "shards": written}


def tar_of(samples: list[Sample]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for name, content in sample.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def count_vendors(samples: list[Sample]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in samples:
        metadata = next(json.loads(content) for name, content in sample.items() if name.endswith(".json"))
        counts[metadata["vendor"]] = counts.get(metadata["vendor"], 0) + 1
    return counts


def attribution(dataset: dict[str, dict[str, dict[str, object]]], counts: dict[str, dict[str, int]]) -> str:
    rows = [
        f"| {vendor} | {facts['author']} | `{facts['package']}` (npm) | {facts['license']} | {split} "
        f"| {counts[split][vendor]:,} |"
        for split in SPLITS
        for vendor, facts in dataset["vendors"].items()
        if vendor in counts[split]
    ]
    return ATTRIBUTION.format(rows="\n".join(rows), text_source=dataset["text_source"])


ATTRIBUTION = """# Sources and licences of the images and texts

This page lists the authors and licences of the example data. Every image is one emoji drawn by one author and
taken from the npm package in the table. It is rendered to 64 x 64 pixels on white and saved as a palette PNG; nothing
else was changed. The JSON of each image has its author, licence and source (`author`, `license`, `source`).

| style | author | package | licence | split | images |
|---|---|---|---|---|---|
{rows}

The val style is **CC-BY-SA-4.0**: works that are made from `val-000000.tar.gz` and distributed keep that licence. The
train shards hold no image under a share-alike licence.

Licence texts: [Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0),
[MIT](https://opensource.org/license/mit), [CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/),
[CC-BY-SA-4.0](https://creativecommons.org/licenses/by-sa/4.0/), [Unicode-3.0](https://www.unicode.org/license.txt).

Names, keywords and categories: {text_source}.

`languages.jsonl.gz` and `languages/` have names, keywords and categories in German, Spanish, French, Japanese and
Chinese, from `emojibase-data` 17.0.0 (npm; MIT, © 2017-2019 Miles Johnson, [licence](languages/LICENSE)), whose names
and keywords are those of Unicode CLDR (Unicode-3.0, © Unicode, Inc.). `../make_languages.py` joins them to the pictures
and writes them into sentences.

The shards are packed by `../make_data.py`. They are data, not part of the program, and keep their own licences.
"""

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: make_data.py FOLDER [OUT]")
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent / "data")
