"""Weights inherited from towers like SigLIP's: `python bench/siglip.py [--seeds 0 1 2] [--threads 1]`.

Published weights of SigLIP need a network, so a teacher with its towers (attention pooling, bidirectional texts, a logit bias) is
trained first, from random weights, on the emoji drawings and with the embeddings of the example's teacher. Then students of half
of its blocks and two thirds of its width learn from it for 200 steps of 64 pairs, and differ in their start alone:

- `none`: random weights, a plain CLIP of the same blocks and widths;
- `leading`, `importance`: `inherit: manual` with this `select`;
- `auto`: `target_sparsity` of the same size instead of given widths and blocks.

R@10 of texts is on the style that training never sees, at the start and at the end. A run is one JSON line in
`bench/results/siglip.jsonl`; runs with a result are skipped. Prints a table of means and ranges.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from recorded import Line, Recorded
from rich.console import Console
from rich.table import Table
from tinyclip.schemas import JobSpec, Layout
from tinyclip.schemas.layouts import PoolLayout
from tinyclip.specfile import load_spec
from tinyclip_workers.model.architecture import resolve_layout
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.model.towers import Clip
from torch import nn
from training import Snapshot, run_stages, scores_of, teacher_of

HERE = Path(__file__).parent
RESULTS = Recorded(HERE / "results" / "siglip.jsonl", "seed", "start")
TEACHER = HERE / "results" / "siglip-teacher.pt"
"""Trained once, and not kept in the repository."""
SPEC = HERE.parent / "examples" / "emoji" / "half.yaml"
BLOCKS: dict[str, Any] = {"image": {"layers": 6, "width": 192, "head_width": 32, "patch_size": 16, "image_size": 64},
          "text": {"layers": 3, "width": 192, "heads": 6, "context_length": 32}, "embed_dim": 256}  # fmt: skip
"""Of the teacher: those of the example's."""
SMALL = {"image": {"layers": 3, "width": 128}, "text": {"layers": 2, "width": 128}}
PLAIN = {"image": BLOCKS["image"] | SMALL["image"], "text": BLOCKS["text"] | SMALL["text"] | {"heads": 4}, "embed_dim": 256}
STARTS: dict[str, dict[str, Any]] = {
    "none": {"inherit": "none", "student": PLAIN},
    "leading": {"inherit": "manual", "select": "leading", "student": SMALL},
    "importance": {"inherit": "manual", "select": "importance", "student": SMALL},
    "auto": {"inherit": "auto", "prune": {"target_sparsity": 0.72}},
}
STEPS, TEACHER_STEPS, TEACHER_BATCH = 200, 600, 128
METRIC = ("style-retrieval", "text_to_image_r10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher = trained_teacher()
    for seed in arguments.seeds:
        for start in STARTS:
            with RESULTS.missing(seed, start) as missing:
                if missing:
                    RESULTS.keep(run(seed, start, teacher))
    show(RESULTS.lines())


def trained_teacher() -> LoadedModel:
    """Return the teacher with towers like SigLIP's, trained before or now."""
    layout, example = siglip_layout(), teacher_of(spec_of({}))
    assert example is not None
    model = random_model(layout)
    found = LoadedModel(model, layout, make_tokenizer(layout), example.image_mean, example.image_std, "siglip", "")
    if not TEACHER.exists():
        whole = {"student": {"image": {"layers": 6}}, "train": {"steps": TEACHER_STEPS}}
        stage = {"inherit": "manual", "select": "leading", **whole}
        spec = spec_of(stage, batch_size=TEACHER_BATCH, optimizer={"lr": 1e-3, "warmup_steps": 100})
        torch.save(trained_beside(spec, found, example).state_dict(), TEACHER)
    model.load_state_dict(torch.load(TEACHER, weights_only=True))
    return found


def trained_beside(spec: JobSpec, parent: LoadedModel, example: LoadedModel) -> nn.Module:
    """Train a model that starts as `parent`, with the embeddings of the example's teacher."""
    [trained] = run_stages(spec, example, "teacher", lambda _: None, first=parent)
    return trained.student.model


def siglip_layout() -> Layout:
    """Return the layout of the example's teacher with the towers of SigLIP."""
    plain = resolve_layout(spec_of({"inherit": "none", "student": BLOCKS}).stages[0].student, None)  # type: ignore[arg-type]
    assert isinstance(plain, Layout)
    image = plain.image.model_copy(update={"pool": PoolLayout(width=192, heads=6, mlp=768)})
    text = plain.text.model_copy(update={"bidirectional": True})
    return plain.model_copy(update={"image": image, "text": text, "logit_bias": True})


def random_model(layout: Layout) -> Clip:
    """Return a model with random weights as SigLIP's are initialised, by the width that each matrix reads."""
    torch.manual_seed(0)
    clip = Clip(layout).eval()
    for name, parameter in clip.named_parameters():
        if name.endswith(("embedding", "embedding.weight", "query")):
            nn.init.normal_(parameter, std=0.02)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return clip


def spec_of(stage: dict[str, Any], **changes: Any) -> JobSpec:
    document = load_spec(SPEC, [])
    stages = [{"name": "small", "train": {"steps": STEPS}, **stage}] if stage else document["stages"]
    return JobSpec.model_validate({**document, "stages": stages, **changes})


def run(seed: int, start: str, teacher: LoadedModel) -> Line:
    """Train one student, and measure it before and after."""
    spec, first = spec_of(STARTS[start], seed=seed), list[float]()

    def observe(snapshot: Snapshot) -> None:
        first.append(r10(snapshot.student, spec))

    [trained] = run_stages(spec, teacher, f"{start}, seed {seed}", observe)
    summary = summarize(trained.student.layout)
    return {
        "seed": seed, "start": start, "first": first[0], "last": r10(trained.student, spec), "teacher": r10(teacher, spec),
        "image_params": summary.image_params, "text_params_without_embedding": summary.text_params_without_embedding,
        "macs": summary.macs, "seconds": round(trained.seconds, 1),
    }  # fmt: skip


def r10(model: LoadedModel, spec: JobSpec) -> float:
    task, metric = METRIC
    return scores_of(model, spec, [each for each in spec.evaluation.tasks if each.name == task])[task][metric]


def show(lines: list[Line]) -> None:
    table = Table("start", "M parameters", "R@10 at the start", "R@10 at the end", "of the teacher's", "CPU seconds")
    for start in STARTS:
        rows = [line for line in lines if line["start"] == start]
        if rows:
            params = (rows[0]["image_params"] + rows[0]["text_params_without_embedding"]) / 1e6
            ends = [100 * row["last"] for row in rows]
            share = sum(row["last"] / row["teacher"] for row in rows) / len(rows)
            begin = sum(100 * row["first"] for row in rows) / len(rows)
            seconds = sum(row["seconds"] for row in rows) / len(rows)
            spread = f"{sum(ends) / len(ends):.1f} ({min(ends):.1f} to {max(ends):.1f})"
            table.add_row(start, f"{params:.2f}", f"{begin:.1f}", spread, f"{share:.1%}", f"{seconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
