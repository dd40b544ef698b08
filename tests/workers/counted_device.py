"""A device that computes on the CPU and records each operation for which a host with a GPU would wait.

It is torch's PrivateUse1 backend, which Python can implement. Registering it changes the process: run this in one of its own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import Library
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "counted"

waits: list[str] = []
"""Reads of results, and copies to the device that are not `non_blocking`, since the list was cleared."""


class _Backend:
    """What torch asks the module of a device for."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class OnDevice(Tensor):
    """A tensor of the device; `values` has its contents, on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnDevice":
        tensor: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            layout=values.layout, device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, *args, **(kwargs or {}))


def _compute(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute an operation on the CPU. What it returns is of the device, unless it was to be copied from there."""
    name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
    if name == "copy_":
        return _copy(args[1], args[0], *args[2:], **kwargs)
    if name == "_to_copy" and kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu":
        waits.append("copy to the host")
        return func(*tree_map(_values, args), **kwargs)
    if name in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "repeat_interleave"):
        waits.append(name)
    _refuse_mixed(name, args)
    known = {id(tensor.values): tensor for tensor in _tensors((args, kwargs)) if isinstance(tensor, OnDevice)}
    found = func(*tree_map(_values, args), **tree_map(_values, kwargs))
    return tree_map(lambda x: known[id(x)] if id(x) in known else OnDevice(x) if isinstance(x, Tensor) else x, found)


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    if not isinstance(target, OnDevice):
        waits.append("copy to the host")
    elif not isinstance(source, OnDevice) and not non_blocking:
        waits.append("blocking copy to the device")
    _values(target).copy_(_values(source))
    return target


def _values(x: Any) -> Any:
    if isinstance(x, OnDevice):
        return x.values
    return torch.device("cpu") if isinstance(x, torch.device) else x


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda x: found.append(x) if isinstance(x, Tensor) else None, tree)
    return found


def _refuse_mixed(name: str, args: Any) -> None:
    """Raise as a GPU does for a tensor of the CPU, unless it is a number."""
    if name in ("index", "index_put_"):
        return  # indices may be on the CPU
    for tensor in _tensors(args):
        if not isinstance(tensor, OnDevice) and tensor.ndim:
            raise RuntimeError(f"{name}: a tensor of shape {tuple(tensor.shape)} is on the CPU, others on the device")


_setup_privateuseone_for_python_backend(NAME, _Backend())
_KEPT = [Library("_", "IMPL"), Library("aten", "IMPL")]
_KEPT[0].fallback(_compute, "PrivateUse1")
_KEPT[1].impl("_copy_from", _copy, "PrivateUse1")
DEVICE = torch.device(NAME, 0)
