"""Where torch computes: the CPU, or a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hwsearch.errors import DeviceError, UsageError

_CUDA = re.compile(r"cuda(?::(\d{1,3}))?")


def compute_device(name: str) -> torch.device:
    """The torch device of that name.

    Args:
        name: `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        UsageError: there is no such device.
        DeviceError: torch can't use it here.
    """
    cuda = _CUDA.fullmatch(name)
    if cuda is not None:
        return _cuda_device(int(cuda[1] or 0))
    if name == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("torch finds no Metal device here: take cpu.")
    if name not in ("cpu", "mps"):
        raise UsageError(f"torch computes on cpu, cuda, cuda:N or mps, not on {name!r}.")
    return torch.device(name)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Let GPUs convolve in float32, where torch takes TF32 by default, as it does not for products.

    So a GPU finds what the CPU finds, but for the order of additions.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _cuda_device(index: int) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise DeviceError("torch finds no CUDA device here: take cpu, or install a CUDA build.")
    if index >= count:
        raise DeviceError(f"There is no cuda:{index}: torch sees {count} CUDA device(s), from 0.")
    return torch.device("cuda", index)
