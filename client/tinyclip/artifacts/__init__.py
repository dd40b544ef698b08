"""The artifacts store, through which server and workers exchange everything.

documents  the files that one side writes for the other: requests, control files, events, token digests
paths      the path of every file and folder, relative to the store's root
store      reading and writing files below a root: a local path or any fsspec URI
disk       durable whole files on a local disk
remote     time limits, retries and errors of remote filesystems

Only `store` and `remote` need fsspec, which comes with the extras; `import tinyclip` does not import this package.
"""
