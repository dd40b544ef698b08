"""Distillation on Ray Train: one attempt at a job, from its first stage to a model version.

- `driver` runs the stages of a job, `groups` one stage on its worker group, `worker` on one worker of it; `stage` resolves what a
  spec leaves open.
- `trainer` has the loop and the training step, made of `teachers`, `gradient_cache` and `objective`.
- `learner`, `optimizer` and `averaging` hold and update the student; `batch_norm` and `distributed` make W workers compute what
  one would; `acceleration` has what makes steps faster.
- `pieces` loads teachers and student, `calibration` draws the pairs that the student is cut by.
- `checkpoints` saves and adopts, `positions` are those in the data.
- `auto_settings` selects what is `auto` before the first step; `observation` reports progress, evaluations and agreement.
- `clusters` is a program of its own: k-means of a teacher's embeddings.
"""
