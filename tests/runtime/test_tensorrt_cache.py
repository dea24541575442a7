"""The timing cache: taken as it is, added to under a lock, never in the way of a build.

TensorRT-RTX has the classes and does nothing with them, so a real build proves the calls, and a
config that remembers what it is told proves the rest.
"""

import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from listener import Listener
from tiny import MIXED, tiny_supernet

from hwsearch.errors import ExportError
from hwsearch.runtime import tensorrt_cache
from hwsearch.runtime.onnx_export import export_decoder
from hwsearch.runtime.tensorrt import TensorRT, build_engine, load_tensorrt
from hwsearch.runtime.tensorrt_cache import load_timing_cache, timing_cache_name

PROFILES = {
    "point_coords": ((1, 1, 2), (1, 2, 2), (8, 4, 2)),
    "point_labels": ((1, 1), (1, 2), (8, 4)),
}


class Cache:
    """Kernels that were timed; on disk, their names with commas between."""

    def __init__(self, data: bytes) -> None:
        self.kernels = set(data.decode().split(",")) - {""}

    def combine(self, other: "Cache", ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if "another GPU" in other.kernels:
            return False
        self.kernels |= other.kernels
        return True

    def serialize(self) -> bytes:
        return ",".join(sorted(self.kernels)).encode()


class Config:
    """What an IBuilderConfig does with caches."""

    def __init__(self) -> None:
        self.cache: Cache | None = None

    def create_timing_cache(self, data: bytes) -> Cache | None:
        return None if data.startswith(b"\0") else Cache(data)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if "another GPU" in cache.kernels:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache | None:
        return self.cache

    def build(self, *kernels: str) -> None:
        assert self.cache is not None
        self.cache.kernels |= set(kernels)


def test_builds_share_what_they_measure(tmp_path: Path):
    path = tmp_path / "new" / "timing.cache"
    first, second, third = Config(), Config(), Config()
    save_first = load_timing_cache(first, path)
    save_second = load_timing_cache(second, path)  # both began before either ended
    first.build("conv", "gemm")
    second.build("gemm", "softmax")
    save_first()
    save_second()
    load_timing_cache(third, path)
    assert third.cache is not None
    assert third.cache.kernels == {"conv", "gemm", "softmax"}


def test_the_cache_of_another_gpu_is_not_used(tmp_path: Path):
    path = tmp_path / "timing.cache"
    path.write_bytes(b"another GPU")
    config = Config()
    save = load_timing_cache(config, path)
    assert config.cache is not None
    assert config.cache.kernels == set()
    config.build("conv")
    save()
    assert path.read_bytes() == b"conv"


def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path):
    path = tmp_path / "timing.cache"
    path.write_bytes(b"\0cut")
    config = Config()
    save = load_timing_cache(config, path)
    config.build("conv")
    save()
    assert path.read_bytes() == b"conv"


def test_each_gpu_and_version_has_a_file_of_its_own():
    name = timing_cache_name("NVIDIA L4", "10.13.3")
    assert name == "timing-NVIDIA-L4-10.13.3.cache"
    assert name != timing_cache_name("NVIDIA L40S", "10.13.3")
    assert "/" not in timing_cache_name("GPU/0", "1")


def test_only_one_build_writes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "timing.cache"
    config = Config()
    save = load_timing_cache(config, path)
    config.build("conv")
    monkeypatch.setattr(tensorrt_cache, "LOCK_TIMEOUT_S", 0.05)
    with (
        FileLock(f"{path}.lock"),
        pytest.raises(ExportError, match=r"has held .*timing\.cache\.lock for .*--timing-cache"),
    ):
        save()
    assert not path.exists()
    save()
    assert path.read_bytes() == b"conv"


def test_writers_that_meet_lose_nothing(tmp_path: Path):
    path = tmp_path / "timing.cache"

    def build(number: int) -> None:
        config = Config()
        save = load_timing_cache(config, path)
        config.build(f"kernel-{number}")
        save()

    threads = [threading.Thread(target=build, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(path.read_text().split(",")) == {f"kernel-{number}" for number in range(8)}


def test_a_place_that_can_not_be_written_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ExportError, match=r"timing cache .* can't be used \(.+\): give another"):
        load_timing_cache(Config(), tmp_path / "file" / "timing.cache")


@pytest.fixture(scope="module")
def real() -> Any:
    pytest.importorskip(
        "tensorrt_rtx_bindings", reason='needs pip install "hwsearch[tensorrt-rtx]"'
    )
    return load_tensorrt(prefer="tensorrt-rtx")


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_the_calls_are_those_of_the_real_library(real: TensorRT, tmp_path: Path):
    """Under the name of TensorRT, TensorRT-RTX is asked to take, combine and write its cache."""
    model = export_decoder(tiny_supernet().extract(MIXED), tmp_path / "decoder.onnx")
    path = tmp_path / "timing.cache"
    as_tensorrt = TensorRT(module=real.module, flavour="tensorrt", version="10.13.3")
    sizes = []
    for _ in range(2):
        info = build_engine(
            model,
            tmp_path / "decoder.engine",
            profiles=PROFILES,
            trt=as_tensorrt,
            timing_cache=path,
        )
        assert info.timing_cache
        sizes.append(path.stat().st_size)
    assert sizes[0] == sizes[1] > 0


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_a_cache_that_can_not_be_kept_costs_no_engine(
    real: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tensorrt_cache, "replace_file", refuse)
    model = export_decoder(tiny_supernet().extract(MIXED), tmp_path / "decoder.onnx")
    listener = Listener()
    build_engine(
        model,
        tmp_path / "d.engine",
        profiles=PROFILES,
        trt=TensorRT(module=real.module, flavour="tensorrt", version="10.13.3"),
        timing_cache=tmp_path / "timing.cache",
        progress=listener,
    )
    assert (tmp_path / "d.engine").stat().st_size > 0
    (sentence,) = listener.lines
    assert "timing.cache can't be used (Permission denied)" in sentence


def test_tensorrt_rtx_gets_no_cache(real: TensorRT, tmp_path: Path):
    model = export_decoder(tiny_supernet().extract(MIXED), tmp_path / "decoder.onnx")
    path = tmp_path / "timing.cache"
    info = build_engine(
        model, tmp_path / "d.engine", profiles=PROFILES, trt=real, timing_cache=path
    )
    assert not info.timing_cache
    assert not path.exists()
