"""The service on one machine.

`supervisor` runs `tinyclip-server up`; `ray` starts, adopts and stops its embedded Ray cluster; `doctor` checks what a server
needs; `machine` has helpers for ports, paths and processes.
"""
