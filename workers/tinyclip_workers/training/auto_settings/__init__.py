"""Settings that are `auto`: measured on the training machine before a stage's first step, and stored with the stage.

- `selection` measures once for all workers and attempts, and reports the result as an event.
- `precision` times fp32 and bf16, `micro_batch` measures the memory of parts of a batch, `learning_rate` tests rates.
"""
