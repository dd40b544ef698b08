"""A reduced vocabulary changes no answer to the queries of the example's evaluation, and makes a small file."""

from pathlib import Path

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import EmbeddingType, ExportOptions, JobSpec, VocabularyChoice
from tinyclip.specfile import load_spec
from tinyclip_workers.evaluation.embedding import embed_texts
from tinyclip_workers.exporting.formats.tinyclip import export_tinyclip
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.tokenizers import count_unknown_tokens
from tinyclip_workers.model.vocabularies.vocabulary import reduced_model, reducible_layout
from tinyclip_workers.versions.reduction import reduced_vocabulary
from tinyclip_workers.versions.texts import evaluation_captions, prompts

EXAMPLE = Path(__file__).parents[3] / "examples" / "emoji"


@torch.no_grad()
def test_every_text_of_the_demo_s_evaluation_has_the_same_embedding(tmp_path: Path) -> None:
    spec = JobSpec.model_validate(load_spec(EXAMPLE / "half.yaml", []))
    whole = load_folder(str(EXAMPLE / "teachers/vit"))  # as wide as its student, so its texts are as sensitive
    vocabulary, report = reduced_vocabulary(ArtifactsStore(str(tmp_path)), spec, None, reducible_layout(whole.layout, None))
    texts = sorted({*prompts(spec.evaluation.tasks), *evaluation_captions(spec.evaluation.tasks)})

    small = reduced_model(whole, vocabulary)
    options = ExportOptions(False, VocabularyChoice.REDUCED, EmbeddingType.FP32)
    export_tinyclip(small, tmp_path, options)
    found = load_folder(str(tmp_path))

    assert count_unknown_tokens(found.tokenizer, texts) == 0
    assert embed_texts(found, texts).equal(embed_texts(whole, texts))
    images = {name: tensor for name, tensor in whole.model.state_dict().items() if name.startswith("visual.")}
    assert all(tensor.equal(found.model.state_dict()[name]) for name, tensor in images.items())
    assert (report.tokens, report.evaluation_texts) == (7908, 934)
    assert report.exact_share == pytest.approx(0.9197, abs=1e-4)
