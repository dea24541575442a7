"""The Python bindings of TensorRTs that can't be installed here, imported all the same.

The wheel of TensorRT's libraries is a gigabyte that needs a GPU to be of use; the bindings are a
megabyte, and hold every class, method and signature. They are linked to three libraries, of which
they want nine functions. `stand_in` compiles libraries with these nine, each giving a null pointer:
the bindings import, their classes can be looked at, and whoever makes an object is told that there
is none, as on a machine without a GPU.

`python tests/tensorrt_api/bindings.py` fetches the wheels, with pip; `make bindings` calls it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# The version that names a table → the requirement whose wheel holds these bindings.
WHEELS = {
    "10.13.3": "tensorrt-cu12-bindings==10.13.3.9",
    "10.16.1": "tensorrt-cu13-bindings==10.16.1.11",
    "11.4.0": "tensorrt-cu13-bindings==11.4.0.106",
}
MODULE = "tensorrt_bindings"
FOLDER = Path(sys.prefix) / "tensorrt-bindings"  # with the environment whose Python they are for
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def fetch() -> None:
    """Download the wheels that are not there yet.

    Raises:
        subprocess.CalledProcessError: pip can't.
    """
    for version, requirement in WHEELS.items():
        folder = FOLDER / version
        if (folder / MODULE).is_dir():
            continue
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
            words = ["download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run(
                [sys.executable, "-m", "pip", *words, "--dest", temporary, requirement],
                check=True,
            )
            (wheel,) = Path(temporary).glob("*.whl")
            unpacked = Path(temporary) / "unpacked"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
            unpacked.rename(folder)


def missing(version: str) -> str | None:
    """Why the bindings of a version can't be imported here; None if they can."""
    if not (FOLDER / version / MODULE).is_dir():
        return f"the bindings of TensorRT {version} are not here: make bindings"
    if compiler() is None:
        return "the stand-in for TensorRT's libraries needs a C compiler: cc, gcc or clang"
    return None


def compiler() -> str | None:
    """The C compiler."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def stand_in(version: str, folder: Path) -> Path:
    """Copy the bindings of a version into `folder` and give them empty libraries.

    Returns:
        The folder to put first on `sys.path`, for `import tensorrt_bindings`.

    Raises:
        subprocess.CalledProcessError: the compiler fails.
    """
    place = folder / f"tensorrt-{version}"
    package = Path(shutil.copytree(FOLDER / version / MODULE, place / MODULE))
    source = place / "stand_in.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS))
    major = version.partition(".")[0]
    first, *others = [package / f"lib{name}.so.{major}" for name in _LIBRARIES]
    subprocess.run([str(compiler()), "-shared", "-fPIC", "-o", first, source], check=True)
    for other in others:
        shutil.copy(first, other)
    return place


if __name__ == "__main__":
    fetch()
