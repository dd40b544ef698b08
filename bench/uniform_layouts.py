"""Twelve uniform layouts made by hand, trained alike: what a search has to beat.

`python bench/uniform_layouts.py [--seeds 0 1 2] [--students FOLDER]`
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from claims_runs import BASE, MIMICRY
from distant_styles import distant_tasks
from hardware import cpu
from recorded import Recorded
from tinyclip.schemas import JobSpec
from tinyclip.specfile import load_spec
from tinyclip_workers.model.summary import summarize
from training import run_stages, scores_of, teacher_of

HERE = Path(__file__).parent
RESULTS = Recorded(HERE / "results" / "uniform_layouts.jsonl", "layout", "steps", "seed")
STEPS, BATCH = 300, 64
# Layers and width of the image and the text tower; the MLPs have four times the width, as the teacher's.
LAYOUTS = [
    ((6, 160), (3, 192)), ((6, 128), (3, 160)), ((6, 96), (2, 160)), ((6, 64), (2, 128)),
    ((4, 192), (3, 192)), ((4, 160), (2, 192)), ((4, 128), (2, 160)), ((3, 192), (2, 192)),
    ((3, 128), (2, 128)), ((2, 192), (2, 192)), ((2, 128), (1, 128)), ((1, 192), (1, 192)),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--students", type=Path, required=True, help="folder for the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.students.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for image, text in LAYOUTS:
            name = f"i{image[0]}x{image[1]}-t{text[0]}x{text[1]}"
            with RESULTS.missing(name, arguments.steps, seed) as missing:
                if missing:
                    RESULTS.keep(train(name, image, text, arguments.steps, seed, arguments.students))


def train(name: str, image: tuple[int, int], text: tuple[int, int], steps: int, seed: int, students: Path) -> dict[str, Any]:
    student = {
        "image": {"layers": image[0], "width": image[1], "mlp_ratio": 4},
        "text": {"layers": text[0], "width": text[1], "heads": text[1] // 32, "mlp_ratio": 4},
    }
    base = load_spec(BASE, [])
    spec = JobSpec.model_validate({
        **base, "name": name, "objective": MIMICRY, "batch_size": BATCH, "seed": seed, "precision": "fp32",
        "stages": [{
            "name": "student", "inherit": "manual", "select": "importance", "student": student, "train": {"steps": steps},
        }],
        "optimizer": {"lr": 1e-3, "warmup_steps": 20},
        "evaluation": {"tasks": base["evaluation"]["tasks"] + distant_tasks(base, HERE / "results" / "distant")},
    })  # fmt: skip
    teacher = teacher_of(spec)
    (trained,) = run_stages(spec, teacher, f"{name} seed {seed}", lambda snapshot: None)
    torch.save(
        {"layout": trained.student.layout.model_dump(mode="json"), "state": trained.student.model.state_dict()},
        students / f"{name}-{steps}-{seed}.pt",
    )
    return {
        "layout": name, "steps": steps, "seed": seed, "cpu": cpu(), "seconds": round(trained.seconds, 1),
        **summarize(trained.student.layout).model_dump(mode="json", exclude={"layout"}),
        "scores": scores_of(trained.student, spec),
    }


if __name__ == "__main__":
    main()
