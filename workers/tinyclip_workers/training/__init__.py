"""Distillation on Ray Train: one attempt at a job, from its first stage to a model version.

- `driver` runs the stages of a job, `worker` one stage on one worker of the group, `stage` resolves what a spec leaves open.
- `trainer` has the loop and the training step, made of `teachers`, `gradient_cache`, `losses`, `objectives`, `projection`.
- `learner` and `optimizer` hold and update the student; `batch_norm` and `distributed` make W workers compute what one would.
- `auto_settings` selects what is `auto`: `auto_precision` measures fp32 and bf16, `rate_test` learning rates.
- `watch` measures the `agreement` with the teacher and compares the weights of `averaging` at the end.
- `checkpoints` saves and adopts, `positions` are those in the data, `reporting` sends progress and evaluations as events.
- `clusters` is a program of its own: k-means of a teacher's embeddings.
"""
