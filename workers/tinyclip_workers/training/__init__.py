"""Distillation on Ray Train: one attempt at a job, from its first stage to a model version.

- `driver` runs the stages of a job, `worker` one stage on one worker of the group, `stage` resolves what a spec leaves open.
- `trainer` has the loop and the training step, made of `teachers`, `gradient_cache`, `losses`, `objectives`, `projection`.
- `learner`, `optimizer` and `averaging` hold and update the student; `batch_norm` and `distributed` make W workers compute what
  one would; `acceleration` has what makes steps faster.
- `pieces` loads teachers and student, `calibration` draws the pairs that the student is cut by.
- `checkpoints` saves and adopts, `positions` are those in the data.
- `auto_settings` selects what is `auto` before the first step; `observation` reports progress, evaluations and agreement.
- `placement` reports a group that waits for room in the cluster; `leaked_groups` removes what keeps it occupied.
- `clusters` is a program of its own: k-means of a teacher's embeddings.
"""
