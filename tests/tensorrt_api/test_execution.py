"""Engines are run through the real classes of each TensorRT, in a process for each."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import bindings
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RTX = "tensorrt_rtx_bindings"


def check(module: str, version: str, path: list[str]) -> None:
    """Run `execution.py` over a module's classes."""
    places = [*path, str(ROOT), str(HERE.parent), str(HERE)]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / "execution.py")],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "PYTHONPATH": os.pathsep.join(places),
            "HWSEARCH_TEST_BINDINGS": module,
            "HWSEARCH_TEST_VERSION": version,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout


@pytest.mark.parametrize("version", ["10.13.3", "11.4.0"])
def test_with_the_classes_of_tensorrt(version: str, tmp_path: Path):
    reason = bindings.missing(version)
    if reason:
        pytest.skip(reason)
    check(bindings.MODULE, version, [str(bindings.stand_in(version, tmp_path))])


def test_with_the_classes_of_tensorrt_rtx():
    if importlib.util.find_spec(RTX) is None:
        pytest.skip('needs pip install "hwsearch[tensorrt-rtx]"')
    check(RTX, "1.", [])
