"""CLIP models as the engine trains, prunes, stores and loads them.

- `layouts`, `architecture`: from a spec to the sizes of both towers, and from a layout to a model and its cost.
- `towers`, `blocks`, `precision`, `preprocessing`: the forward pass.
- `masks`, `sparsity`, `masked`, `fold`: learnable masks, the penalty on the student's size, and the folded model (METHOD 3, 6).
- `tokenizers`: what texts become. `rotation`: the same model with rotated embeddings.
- `libraries/`: models of other architectures, and in our own towers to inherit from.
- `files/`: weights, model folders, where a teacher comes from and its errors.
- `vocabularies/`: tokenizers that are trained, and vocabularies that are reduced or changed.
- `layout_diagram`: an SVG of what each block has kept.
"""
