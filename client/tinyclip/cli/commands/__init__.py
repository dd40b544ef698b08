"""The commands of `tinyclip-client`, one module per group."""
