"""Evaluation of models: zero-shot classification, retrieval and linear probes, several models on the same decoded images.

- `tasks.evaluate_tasks`: run tasks on shards and return their scores
- `labels`: what a task compares with the images: classes, templates, labels and captions
- `embedding`: one pass over samples or texts through several models, in torch or in an engine
- `metrics`: scores from embeddings alone; `progress`: the share of the samples that were read
- `compatibility`: searches across a student and its teacher
- `clip_benchmark`: CLIP_benchmark's folders, from which a task takes what it leaves out
- `job`: the work of the Ray job of an evaluation
"""
