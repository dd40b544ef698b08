"""CLIP models as the engine trains, prunes, stores and loads them.

- `layouts`, `architecture`: from a spec to the sizes of both towers, and from a layout to a model and its cost.
- `towers`, `blocks`, `precision`, `preprocessing`: the forward pass.
- `masks`, `sparsity`, `masked`, `fold`: learnable masks, the penalty on the student's size, and the folded model (METHOD 3, 6).
- `headers`, `weights`, `folders`, `sources`: files of weights, model folders, where a teacher comes from and its `errors`.
- `libraries`: models of other architectures. `rotation`: the same model with rotated embeddings.
- `tokenizers`, `tokenizer_training`, `vocabulary`, `vocabulary_change`: what texts become.
- `layout_diagram`: an SVG of what each block has kept.
"""
