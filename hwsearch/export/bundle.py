"""Writes a bundle: staged beside its place, gated, timed by the caller, then sealed and renamed."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue
from safetensors.torch import save_file
from segment_anything.modeling import Sam

from hwsearch.errors import ExportError, UsageError
from hwsearch.export.engine_gate import judge_engines, judged_on_gpu
from hwsearch.export.engines import EngineOptions, build_engines, check_parser, ready
from hwsearch.export.gate import Probe
from hwsearch.export.manifest import (
    DECODER_FILE,
    ENCODER_FILE,
    INT8_ENCODER_FILE,
    MANIFEST_FILE,
    SUBNET_FILE,
    WEIGHTS_FILE,
    BundleManifest,
    EngineParity,
    Parity,
    PrecisionPlan,
    Preprocessing,
    digest_file,
)
from hwsearch.export.parity import check_parity, drawn_images, preprocessing_of
from hwsearch.export.pixels import Pixels
from hwsearch.export.place import check_place, put_in_place, staging_folder
from hwsearch.export.precision import PrecisionOptions, choose_precision
from hwsearch.files import replace_file
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Accuracy, Measurement, SamGeometry, SubnetConfig
from hwsearch.runtime.onnx_export import export_decoder, export_encoder
from hwsearch.runtime.onnx_int8 import export_encoder_int8
from hwsearch.runtime.tensorrt_info import EngineInfo
from hwsearch.runtime.tensorrt_operators import check_operators

_VERSIONED = ("hwsearch", "torch", "onnx", "onnxruntime", "segment-anything")


@dataclass(frozen=True)
class StagedBundle:
    """A bundle that is complete but for its manifest, in a temporary directory.

    `encoder` and `decoder` are files that will ship, and engines stand beside them: time the ones
    that the target runs.
    """

    folder: Path
    out: Path
    geometry: SamGeometry
    subnet: SubnetConfig
    preprocessing: Preprocessing
    parity: Parity
    precision: PrecisionPlan | None
    engines: tuple[EngineInfo, ...]
    engine_parity: EngineParity | None
    encoder_file: str = ENCODER_FILE

    @property
    def encoder(self) -> Path:
        """The image encoder's ONNX file: fp32, or in dynamic int8 where that was asked for."""
        return self.folder / self.encoder_file

    @property
    def decoder(self) -> Path:
        """The mask decoder's ONNX file."""
        return self.folder / DECODER_FILE

    def seal(
        self,
        *,
        accuracy: Accuracy | None = None,
        latency: Measurement | None = None,
        provenance: Mapping[str, JsonValue] | None = None,
    ) -> Path:
        """Write the manifest and put the bundle in its place.

        Args:
            accuracy: what the subnet reaches on images that the search never saw.
            latency: measured on `encoder` and `decoder`, or on a GPU on the engines.
            provenance: where the subnet came from: supernet, study, trial.

        Returns:
            The bundle's directory. A bundle that was there is replaced.

        Raises:
            UsageError: the latency is of another subnet, or something else took the place.
            ExportError: the bundle can't be put in its place.
        """
        if latency is not None and latency.subnet != self.subnet:
            raise UsageError(
                f"The latency is of subnet {latency.subnet_id}, the bundle of {self.subnet.id}: "
                "measure the staged files."
            )
        files = sorted(path for path in self.folder.iterdir() if path.name != MANIFEST_FILE)
        manifest = BundleManifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            geometry=self.geometry,
            subnet=self.subnet,
            preprocessing=self.preprocessing,
            files={path.name: digest_file(path) for path in files},
            parity=self.parity,
            accuracy=accuracy,
            latency=latency,
            precision=self.precision,
            engines=self.engines,
            engine_parity=self.engine_parity,
            encoder_file=self.encoder_file,
            versions=_versions(),
            provenance=dict(provenance or {}),
        )
        (self.folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n")
        check_place(self.out)
        try:
            put_in_place(self.folder, self.out)
        except OSError as error:
            raise ExportError(f"{self.out} could not be written: {error.strerror}.") from None
        return self.out


@contextmanager
def stage_bundle(
    out: Path,
    *,
    sam: Sam,
    geometry: SamGeometry,
    subnet: SubnetConfig,
    images: Sequence[Pixels] | None = None,
    precision: PrecisionOptions | None = None,
    engines: EngineOptions | None = None,
    dynamic_int8: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Iterator[StagedBundle]:
    """Export a subnet beside `out` and hold it against the model.

    ```python
    with stage_bundle(out, sam=sam, geometry=geometry, subnet=subnet) as staged:
        latency = measure(staged.encoder, staged.decoder)
        staged.seal(accuracy=accuracy, latency=latency)
    ```

    What is not sealed by the end of the context is deleted.

    Args:
        out: the directory to write; a bundle there is replaced, anything else is left alone.
        sam: the extracted subnet, a plain Segment Anything.
        geometry: that of the full model.
        subnet: which subnet `sam` is.
        images: for the gates, H×W×3 uint8 RGB; without them, two that are drawn. Engines are
            judged on those of `precision`, where there are some.
        precision: of the engines; files in it join the bundle. None: fp32, as the ONNX files.
        engines: build TensorRT engines too; where a GPU here can run them, they are held against
            the fp32 files on it.
        dynamic_int8: an encoder with int8 matrix products joins the bundle, as ONNX Runtime runs
            it on a CPU, and is the one that a loader opens. No engine can be built from it.
        threads: of ONNX Runtime in the parity gate and the precision gate.
        progress: is told of the steps.

    Raises:
        UsageError: `sam` is not the subnet, or something that is no bundle stands at `out`.
        ExportError: the export failed, the parity gate did, TensorRT lacks an operator of a file
            or can't build an engine, the GPU's masks are not those of the files, or nothing can be
            written beside `out`.
        DeviceError: engines are asked for and TensorRT is not here, or the GPU can't run them.
    """
    progress = progress or SilentProgress()
    _check_subnet(sam, subnet)
    check_place(out)
    if engines:
        engines = ready(engines)
    how = preprocessing_of(sam)
    name = f"{geometry.id}/{subnet.id}"
    folder = staging_folder(out)
    try:
        with progress.task(f"Exporting subnet {subnet.id}", 4) as advance:
            export_encoder(sam, folder / ENCODER_FILE, name=name)
            advance(note="encoder")
            export_decoder(sam, folder / DECODER_FILE, name=name)
            advance(note="decoder")
            _write_weights(sam, folder / WEIGHTS_FILE)
            (folder / SUBNET_FILE).write_text(subnet.to_json() + "\n")
            advance(note="weights")
            parity = check_parity(
                sam, folder / ENCODER_FILE, folder / DECODER_FILE, images=images, threads=threads
            )
            advance(note="parity")
        plan = None
        if precision and precision.precision != "fp32":
            plan = choose_precision(
                folder, how=how, options=precision, threads=threads, progress=progress
            )
        files = sorted(folder.glob("*.onnx"))
        for file in files:
            check_operators(file)
        if not engines:  # a build parses them anyway
            check_parser(files)
        built: tuple[EngineInfo, ...] = ()
        verdict = None
        if engines:
            built = build_engines(
                folder,
                resolution=subnet.resolution,
                options=engines,
                precision=plan,
                progress=progress,
            )
            verdict = judge_engines(
                folder,
                how=how,
                probes=precision.probes if precision else _as_probes(images),
                options=engines,
                limits=precision.limits if precision else None,
                threads=threads,
            )
        if dynamic_int8:  # written last: TensorRT does not read it
            export_encoder_int8(sam, folder / INT8_ENCODER_FILE, name=name)
        if plan and verdict:
            plan = judged_on_gpu(plan, verdict)
        yield StagedBundle(
            folder=folder,
            out=out,
            geometry=geometry,
            subnet=subnet,
            preprocessing=how,
            parity=parity,
            precision=plan,
            engines=built,
            engine_parity=verdict,
            encoder_file=INT8_ENCODER_FILE if dynamic_int8 else ENCODER_FILE,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_bundle(
    out: Path,
    *,
    sam: Sam,
    geometry: SamGeometry,
    subnet: SubnetConfig,
    accuracy: Accuracy | None = None,
    images: Sequence[Pixels] | None = None,
    precision: PrecisionOptions | None = None,
    engines: EngineOptions | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Stage and seal a bundle without timing it; see `stage_bundle` and `StagedBundle.seal`."""
    with stage_bundle(
        out,
        sam=sam,
        geometry=geometry,
        subnet=subnet,
        images=images,
        precision=precision,
        engines=engines,
        threads=threads,
        progress=progress,
    ) as staged:
        return staged.seal(accuracy=accuracy, provenance=provenance)


def _as_probes(images: Sequence[Pixels] | None) -> list[Probe]:
    return [Probe(image) for image in images or drawn_images()]


def _check_subnet(sam: Sam, subnet: SubnetConfig) -> None:
    encoder = sam.image_encoder
    shape = (encoder.img_size, [block.mlp.lin1.out_features for block in encoder.blocks])
    if shape != (subnet.resolution, [layer.mlp_width for layer in subnet.layers]):
        raise UsageError(
            f"The model takes {shape[0]} pixels and has {len(shape[1])} layers, and is not the "
            f"subnet {subnet.id}: extract it with supernet.extract(config)."
        )


def _write_weights(sam: Sam, path: Path) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in sam.state_dict().items()}
    with replace_file(path) as temporary:  # safetensors makes private files
        save_file(state, temporary)


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in _VERSIONED}
    return {"python": platform.python_version(), **versions}
