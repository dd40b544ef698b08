"""The artifacts store, through which server and workers exchange everything.

documents  the files that one side writes for the other: requests, control files, events, token digests
paths      the path of every file and folder, relative to the store's root
store      reading and writing files below a root: a local path or any fsspec URI

Only `store` needs fsspec, which comes with the extras; `import tinyclip` does not import this package.
"""
