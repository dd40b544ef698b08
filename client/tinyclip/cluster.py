"""Resources of the cluster that jobs run on."""

FIXED_CPUS = "TINYCLIP_FIXED_CPUS"
"""The environment variable of the planner with the CPUs of an embedded cluster, which no node joins; unset: any cluster."""
