"""NVIDIA's own timing program, where it is installed, as a second opinion on an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwsearch.errors import DeviceError
from hwsearch.runtime.cuda_timing import LEAST_RUNS, LEAST_S, WARMUP_S
from hwsearch.runtime.tensorrt import Flavour, Shape

_PROGRAMS: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("trtexec", "/usr/src/tensorrt/bin/trtexec"),
    "tensorrt-rtx": ("tensorrt_rtx",),
}
_LIMIT_S = 300.0


@dataclass(frozen=True)
class TrtexecResult:
    """What the program found: its version if it told one, and the median of GPU time."""

    version: str | None
    median_ms: float
    command: tuple[str, ...]

    def is_of(self, version: str) -> bool:
        """Whether the program is of TensorRT's `version`, such as 11.4.0.106.

        It tells its own as one number with two digits for each part after the first: 110400.
        """
        if self.version is None:
            return False
        parts = self.version.split(".")
        if len(parts) == 1:
            number = int(parts[0])
            parts = [str(part) for part in (number // 10000, number // 100 % 100, number % 100)]
        return parts[:3] == version.split(".")[:3]


def find_trtexec(flavour: Flavour) -> str | None:
    """The program that times engines of a flavour; None where there is none."""
    return next(filter(None, map(shutil.which, _PROGRAMS[flavour])), None)


def run_trtexec(
    program: str, engine: Path, *, shapes: Mapping[str, Shape], graph: bool
) -> TrtexecResult:
    """Time an engine the way that `TensorRtRunner.time_alone` does.

    Its defaults changed with version 11, so that every condition is asked for; what a version's
    `--help` does not name is what it does anyway.

    Args:
        program: from `find_trtexec`.
        engine: the file.
        shapes: of the inputs with open dimensions.
        graph: whether runs are replays of a CUDA graph.

    Raises:
        DeviceError: it can't time the engine; the message holds its own error.
    """
    wanted = {
        "--loadEngine": str(engine),
        "--shapes": ",".join(f"{n}:{'x'.join(map(str, shape))}" for n, shape in shapes.items()),
        "--warmUp": f"{WARMUP_S * 1e3:g}",
        "--iterations": str(LEAST_RUNS),
        "--duration": f"{LEAST_S:g}",
        "--noDataTransfers": None,
        "--useCudaGraph": None,
    }
    if not shapes:
        del wanted["--shapes"]
    if not graph:
        del wanted["--useCudaGraph"]
    known = set(re.findall(r"--\w+", _output([program, "--help"])))
    words = [
        name if value is None else f"{name}={value}"
        for name, value in wanted.items()
        if name in known
    ]
    command = (program, *words)
    text = _output(command)
    found = re.search(r"GPU Compute Time:.*?\bmedian = ([\d.]+) ms", text)
    if found is None:
        errors = [line for line in text.splitlines() if "[E]" in line] or text.splitlines()[-1:]
        reason = " ".join(errors[0].split()) if errors else "it says nothing"
        raise DeviceError(f"{program} can't time {engine}: {reason.rstrip('.')}.")
    version = re.search(r"\[TensorRT(?:-RTX)? v([\d.]+)\]", text)
    return TrtexecResult(version[1] if version else None, float(found[1]), command)


def _output(command: tuple[str, ...] | list[str]) -> str:
    try:
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError(f"{command[0]} can't be run: {error}.") from None
