"""Free TCP ports."""

from tinyclip_server.local.machine import free_ports as free_ports
