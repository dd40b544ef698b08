"""Importing models made elsewhere: one process per file turns weights into a registry version.

- `convert`: the process that the control plane starts, and the version that it writes.
- `source_files`: fetch a file, directory or uploaded tar and read its state dict without executing anything in it.
- `tensor_names`: rename the tensors of other programs to open_clip's names.
- `layout_inference`: determine the layout and the activation from configuration, preset or tensor shapes, and check them.
"""
