"""Where torch computes."""

import pytest
import torch

from hwsearch.compute import compute_device, exact_convolutions
from hwsearch.errors import DeviceError, UsageError


def test_the_cpu_is_always_there():
    assert compute_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cpu:0", "meta", "", "cuda:99999"])
def test_what_is_no_device_is_refused(name: str):
    with pytest.raises(UsageError, match="torch computes on cpu, cuda"):
        compute_device(name)


def test_cuda_devices_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert compute_device("cuda") == torch.device("cuda", 0)
    assert compute_device("cuda:1") == torch.device("cuda", 1)
    assert compute_device("cuda:01") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match=r"no cuda:2: torch sees 2"):
        compute_device("cuda:2")


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device"):
        compute_device("cuda")
    with pytest.raises(DeviceError, match="no Metal device"):
        compute_device("mps")


@pytest.mark.parametrize("before", [True, False])
def test_convolutions_are_exact_for_a_while(monkeypatch: pytest.MonkeyPatch, before: bool):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with exact_convolutions():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
