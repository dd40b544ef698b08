"""A worker's share of a GPU on which other small trainings run at the same time."""

import torch

_share = 1.0


def take_share(device: torch.device, share: float) -> None:
    """Limit this process to a share of the memory of its GPU, so that it cannot take what belongs to the others there."""
    global _share
    if device.type == "cuda":
        _share = share
        torch.cuda.set_per_process_memory_fraction(share, device)


def free_bytes(device: torch.device) -> int:
    """Return the bytes of the device that this process can still take."""
    free, total = torch.cuda.mem_get_info(device)
    return min(free, int(_share * total) - torch.cuda.memory_reserved(device))
