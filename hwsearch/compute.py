"""Where torch computes: the CPU, or a GPU."""

from __future__ import annotations

import re

import torch

from hwsearch.errors import DeviceError, UsageError

_NAME = re.compile(r"cpu|cuda(:(?P<index>\d+))?|mps")


def compute_device(name: str) -> torch.device:
    """The torch device of that name.

    Args:
        name: `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        UsageError: there is no such device.
        DeviceError: torch can't use it here.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"There is no device {name!r} to compute on: take cpu, cuda, cuda:N or mps."
        )
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceError("torch finds no CUDA device here: take cpu, or install a CUDA build.")
        if int(match["index"] or 0) >= count:
            raise DeviceError(
                f"There is no {name}: torch sees {count} CUDA device(s), from cuda:0."
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("torch finds no Metal device here: take cpu.")
    return device
