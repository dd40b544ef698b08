"""The student as OpenVINO runs it on a CPU, in fp32, bf16 or int8; texts always in fp32, without work on the padding."""

from collections.abc import Sequence
from pathlib import Path

from tinyclip_workers.engines.openvino_model import CompiledTower
from tinyclip_workers.engines.report import EngineReport
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.towers import longest_text
from tinyclip_workers.types import Matrix, Pixels


class OpenVinoEngine:
    """Two compiled towers; torch's weights are not kept."""

    def __init__(
        self, loaded: LoadedModel, image: Path, text: Path, report: EngineReport, *, threads: int, bf16: bool = False
    ) -> None:
        """`image` and `text`: the `.xml` files of `openvino_model.save_model`."""
        self.name, self.report = report.engine, report
        self.embed_dim, self.image_size = loaded.layout.embed_dim, loaded.layout.image.image_size
        self.logit_scale = float(loaded.model.logit_scale.detach().exp())
        self._tokenize = loaded.tokenizer
        self._image = CompiledTower(image, threads=threads, bf16=bf16)
        self._text = CompiledTower(text, threads=threads)

    def encode_image(self, images_BSSC: Pixels) -> Matrix:
        return self._image(images_BSSC)

    def encode_text(self, texts: Sequence[str]) -> Matrix:
        tokens_BT = self._tokenize(list(texts))
        return self._text(tokens_BT[:, : longest_text(tokens_BT)].numpy())
