"""Write the captions of the emoji data set in further languages: `data/languages.jsonl.gz`, and class names in `data/languages/`.

    npm pack emojibase-data@17.0.0 && tar -xzf emojibase-data-17.0.0.tgz
    python examples/emoji/make_languages.py package [DATA]

Names, keywords and categories are those of `emojibase-data`, joined to the pictures by code point. A training picture has six
captions in each language, in the order of its English ones; a picture of `val` has one, for retrieval. The English captions stay
in the shards. The same input gives the same output bytes for one version of zlib.
"""

import gzip
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEYWORDS = 3
"""Keywords in a caption: those that the fewest emoji have."""


@dataclass(frozen=True)
class Wording:
    """The templates of one language."""

    of_name: str
    of_kind: str
    of_category: str
    colon: str = ": "
    comma: str = ", "


WORDINGS = {
    "de": Wording("ein Emoji: {}", "ein Emoji der Art {}", "ein Emoji der Kategorie {}"),
    "es": Wording("un emoji de {}", "un emoji del tipo {}", "un emoji de la categoría {}"),
    "fr": Wording("un emoji : {}", "un emoji du type {}", "un emoji de la catégorie {}", colon=" : "),
    "ja": Wording("{}の絵文字", "{}の種類の絵文字", "{}のカテゴリの絵文字", "：", "、"),
    "zh": Wording("{}的表情符号", "{}类的表情符号", "{}类别的表情符号", "：", "，"),
}


@dataclass(frozen=True)
class Emoji:
    """An emoji's name and keywords in a language."""

    name: str
    keywords: Sequence[str]
    kind: str
    category: str


def main(package: Path, data: Path) -> None:
    samples = {split: list(read_metadata(data, split)) for split in ("train", "val")}
    codes = sorted({code_point(metadata["hexcode"]) for split in samples.values() for _, metadata in split})
    emoji = {language: read_language(package / language, codes) for language in WORDINGS}
    lines = []
    for split, found in samples.items():
        for key, metadata in found:
            of_key = {language: emoji[language][code_point(metadata["hexcode"])] for language in WORDINGS}
            captions = {language: captions_of(WORDINGS[language], each, split) for language, each in of_key.items()}
            lines.append((metadata["hexcode"], key, json.dumps({"key": key, "captions": captions}, ensure_ascii=False)))
    text = "".join(f"{line}\n" for _, _, line in sorted(lines))  # pictures of one concept together, which gzip shortens
    (data / "languages.jsonl.gz").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    write_classes(data, [*samples["train"], *samples["val"]], emoji)
    (data / "languages").joinpath("LICENSE").write_bytes((package / "LICENSE").read_bytes())


def read_metadata(data: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield key and JSON of each picture."""
    for path in sorted(data.glob(f"{split}-*.tar.gz")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(".json") else None
                if file is not None:
                    yield member.name.removesuffix(".json"), json.load(file)


def code_point(hexcode: str) -> str:
    """Return a code point sequence without variation selectors, by which the sets of emoji differ."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def read_language(folder: Path, codes: Sequence[str]) -> dict[str, Emoji]:
    """Return the emoji by code point. Raises KeyError for one that the language lacks."""
    entries = {code_point(entry["hexcode"]): entry for entry in json.loads((folder / "data.json").read_text())}
    messages = json.loads((folder / "messages.json").read_text())
    kinds, categories = ({each["order"]: each["message"] for each in messages[name]} for name in ("subgroups", "groups"))
    uses = Counter(tag for code in codes for tag in entries[code]["tags"])
    found = {}
    for code in codes:
        entry = entries[code]
        others = [tag for tag in entry["tags"] if tag.casefold() != entry["label"].casefold()] or entry["tags"]
        keywords = sorted(others, key=lambda tag: (uses[tag], tag))[:KEYWORDS]
        found[code] = Emoji(entry["label"], keywords, kinds[entry["subgroup"]], categories[entry["group"]])
    return found


def captions_of(wording: Wording, emoji: Emoji, split: str) -> list[str]:
    """Return the captions of a picture, in the order of its English ones."""
    keywords = wording.comma.join(emoji.keywords)
    for_retrieval = f"{emoji.name}{wording.colon}{keywords}"
    if split == "val":
        return [for_retrieval]
    return [
        wording.of_name.format(emoji.name), f"{emoji.name}{wording.comma}{emoji.kind}", for_retrieval,
        wording.of_kind.format(emoji.kind), f"{keywords}{wording.comma}{emoji.category}",
        wording.of_category.format(emoji.category),
    ]  # fmt: skip


def write_classes(data: Path, samples: Sequence[tuple[str, dict[str, Any]]], emoji: dict[str, dict[str, Emoji]]) -> None:
    """Write the names of the sub-groups in each language, in the order of `subgroups.txt`."""
    codes = {metadata["subgroup"]: code_point(metadata["hexcode"]) for _, metadata in samples}
    folder = data / "languages"
    folder.mkdir(exist_ok=True)
    for language, found in emoji.items():
        names = [found[codes[number]].kind for number in range(len(codes))]
        (folder / f"subgroups.{language}.txt").write_text("\n".join(names) + "\n")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: make_languages.py PACKAGE [DATA]")
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent / "data")
