"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from hwsearch.errors import UsageError

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", help="Folder for profiles, predictors and studies.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ComputeOption = Annotated[
    str, typer.Option("--device", help="What torch computes on: cpu, cuda, cuda:N or mps.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="'cpu' (ONNX Runtime) or 'cuda[:N]' (TensorRT).")
]
RuntimeOption = Annotated[
    str | None, typer.Option("--runtime", help="Another runtime of the device; see 'devices'.")
]
PrecisionOption = Annotated[str, typer.Option("--precision", help="What the runtime computes in.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; default: all physical cores.")
]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Images a run.")]
SupernetOption = Annotated[
    str, typer.Option("--supernet", help="A supernet directory, or 'demo' for the shipped one.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Source of all random draws.")
]
StaleOption = Annotated[
    bool,
    typer.Option("--allow-stale", help="Accept what was measured under other versions."),
]
FramingOption = Annotated[
    str | None,
    typer.Option(
        "--framing",
        help="What the model is shown: 'image' (whole images) or 'object' (a window three "
        "times as wide as the object); default: what the supernet was trained for.",
    ),
]

_DEVICE = r"cpu|cuda(?::\d+)?"
_TARGET_WORDS = ("runtime", "precision", "threads")
_UNITS = {"": 1.0, "ms": 1.0, "s": 1000.0}
_BYTES = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_latency(text: str) -> float:
    """Milliseconds from `40ms`, `1.5s` or a bare number of milliseconds.

    Raises:
        UsageError: it has another form, or is not positive.
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(ms|s|)\s*", text)
    try:
        latency_ms = float(match.group(1)) * _UNITS[match.group(2)] if match else math.nan
    except ValueError:
        latency_ms = math.nan
    if not 0 < latency_ms < math.inf:
        raise UsageError(
            f"{text!r} is no latency: give a positive one as 40ms, 1.5s or a number of "
            "milliseconds."
        )
    return latency_ms


class TargetWords(NamedTuple):
    """What `--target` names: a device with what was said of it, or a profiled target's folder."""

    name: str
    latency_ms: float
    runtime: str | None = None
    precision: str | None = None
    threads: int | None = None
    is_device: bool = True


def parse_target(text: str) -> TargetWords:
    """A target from `cpu=40ms`, `cpu:threads=1,precision=int8=60ms` or `FOLDER=8ms`.

    After a device, `runtime`, `precision` and `threads` may be set, with commas between. Anything
    else names a folder of the workspace's `profiles` or `predictors`.

    Raises:
        UsageError: it has another form.
    """
    words, equals, latency = text.rpartition("=")
    match = re.fullmatch(rf"({_DEVICE})(?::(.+))?", words)
    if not equals or not words or (match is None and ("=" in words or ":" in words)):
        raise UsageError(
            f"{text!r} is no target: give DEVICE=LATENCY, such as cpu=40ms or "
            "cpu:threads=1,precision=int8=60ms, or the folder of a profiled target and its latency."
        )
    latency_ms = parse_latency(latency)
    if match is None:
        return TargetWords(words, latency_ms, is_device=False)
    said: dict[str, str] = {}
    for part in match.group(2).split(",") if match.group(2) else ():
        name, _, value = part.partition("=")
        if name not in _TARGET_WORDS or not value or name in said:
            raise UsageError(
                f"{part!r} can't be said of target {match.group(1)}: give each of "
                f"{', '.join(_TARGET_WORDS)} at most once, such as threads=1."
            )
        said[name] = value
    threads = said.get("threads")
    if threads is not None and not re.fullmatch(r"[1-9]\d*", threads):
        raise UsageError(f"{threads!r} threads can't be used: give a whole number from 1 up.")
    return TargetWords(
        match.group(1),
        latency_ms,
        runtime=said.get("runtime"),
        precision=said.get("precision"),
        threads=None if threads is None else int(threads),
    )


def parse_percent(text: str) -> float:
    """Percent from `2%` or a bare number of percent.

    Raises:
        UsageError: it has another form, or does not lie between 0 and 100.
    """
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 < percent < 100:
        raise UsageError(f"{text!r} is no error: give percent between 0 and 100, such as 2%.")
    return percent


def parse_bytes(text: str) -> int:
    """Bytes from `4GiB`, `512MiB` or a bare number of bytes.

    Raises:
        UsageError: it has another form, or is not positive.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GiB|MiB|KiB|)\s*", text)
    count = int(float(match.group(1)) * _BYTES[match.group(2)]) if match else 0
    if count < 1:
        raise UsageError(
            f"{text!r} is no amount of memory: give it as 4GiB, 512MiB or a number of bytes."
        )
    return count


def parse_list(text: str | None, kind: type[int] | type[float], name: str) -> tuple[Any, ...]:
    """Numbers from `a,b,c`.

    Raises:
        UsageError: it holds something else.
    """
    if text is None:
        return ()
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{text!r} is no {name}: give numbers with commas between, such as 1,2,4."
        ) from None


def parse_framing(text: str | None, default: str) -> Any:  # noqa: ANN401 - a Literal
    """`image` or `object`.

    Raises:
        UsageError: it is neither.
    """
    if text not in (None, "image", "object"):
        raise UsageError(f"There is no framing {text!r}: take image or object.")
    return text or default


def print_result(result: object, *, as_json: bool, lines: list[str]) -> None:
    """Print a result on stdout: as one JSON object, or as lines for people."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    for line in lines:
        typer.echo(line)
