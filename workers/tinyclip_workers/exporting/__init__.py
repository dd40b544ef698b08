"""Exports: a model version in the files of another library, checked against torch.

- `job`: the Ray job. `exporter`: the table of formats; writes an export, loads it again and checks it.
- `check`: compare an export's embeddings with torch's. `samples`: the images and texts to check and calibrate with.
- `settings`, `tokenizer`: preprocessing and tokenizer files for formats without their own.
- `formats/`: one module per format.
"""
