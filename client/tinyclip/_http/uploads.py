"""Uploads of a model: a file as it is, a directory as a tar of its model files."""

import asyncio
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from tinyclip.errors import InputError

PIECE = 1 << 20
WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors", "compact.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt", "pytorch_model.bin",
)  # fmt: skip
"""Weights files in order of preference: the first that a directory has is sent."""
CONFIGS = ("open_clip_config.json", "layout.json", "preprocess.json")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "tokenizer_settings.json",
)  # fmt: skip
"""The files of a tokenizer other than CLIP's."""

OnProgress = Callable[[int, int], None]
"""Receives the bytes sent so far and the total."""


class Upload:
    """The content of a file or directory to send. Raises `InputError` if there is none."""

    def __init__(self, path: Path | str, on_progress: OnProgress | None = None) -> None:
        self._path = Path(path).expanduser()
        self._on_progress = on_progress
        if not self._path.exists():
            raise InputError(f"{self._path} does not exist", "name a file or directory, or one on the server with --on-server")
        self._files = [self._path] if self._path.is_file() else self._model_files()
        self.media_type = "application/octet-stream" if self._path.is_file() else "application/x-tar"
        self.name = self._path.resolve().name
        self.bytes = self._files[0].stat().st_size if self._path.is_file() else sum(map(_bytes_in_tar, self._files)) + _END

    def pieces(self) -> Iterator[bytes]:
        """Yield the whole content, from the start."""
        sent = 0
        for piece in self._raw():
            sent += len(piece)
            yield piece
            if self._on_progress is not None:
                self._on_progress(sent, self.bytes)

    async def pieces_async(self) -> AsyncIterator[bytes]:
        """Yield the same, read in a thread."""
        pieces = self.pieces()
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    def _model_files(self) -> list[Path]:
        weights = [self._path / name for name in WEIGHTS if (self._path / name).is_file()][:1]
        if not weights:
            raise InputError(f"{self._path} has no weights", f"put one of {', '.join(WEIGHTS)} there, or name the file itself")
        return [*(self._path / name for name in (*CONFIGS, *TOKENIZER) if (self._path / name).is_file()), *weights]

    def _raw(self) -> Iterator[bytes]:
        if self._path.is_file():
            yield from _content(self._path)
            return
        for file in self._files:
            info = tarfile.TarInfo(file.name)
            info.size = file.stat().st_size
            yield info.tobuf()
            yield from _content(file)
            yield bytes(-info.size % tarfile.BLOCKSIZE)
        yield bytes(_END)


_END = 2 * tarfile.BLOCKSIZE
"""The length of the two empty blocks that end a tar."""


def _bytes_in_tar(file: Path) -> int:
    size = file.stat().st_size
    return tarfile.BLOCKSIZE + size + -size % tarfile.BLOCKSIZE


def _content(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as opened:
        while piece := opened.read(PIECE):
            yield piece
