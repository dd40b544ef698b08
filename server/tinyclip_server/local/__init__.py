"""The service on one machine.

`supervisor` runs `tinyclip-server up`; `ray` starts, adopts and stops its embedded Ray cluster; `doctor` checks what a server
needs; `machine` has helpers for ports, paths and processes. `backup` copies database and artifacts and restores them, `reconcile`
brings a restored database up to its artifacts, `stored_files` finds what is missing.
"""
