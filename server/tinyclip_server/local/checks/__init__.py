"""The checks of `tinyclip-server doctor`.

- `machine`: what is on this machine: folders, versions, ports and disks
- `services`: what is reached from it: databases, Ray and the artifacts store
"""
