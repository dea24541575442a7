"""The stage that ships: a chosen subnet as a bundle, timed as it is."""

from __future__ import annotations

from pathlib import Path

from hwsearch.errors import HwsearchError, UsageError
from hwsearch.evaluation import EvaluationSet, evaluate_segmenter
from hwsearch.export.bundle import stage_bundle, write_bundle
from hwsearch.export.engines import EngineOptions, for_target, ready
from hwsearch.export.gate import Probe
from hwsearch.export.manifest import Precision
from hwsearch.export.place import check_place
from hwsearch.export.precision import PrecisionOptions
from hwsearch.profiler.session import SessionSettings, Subject
from hwsearch.profiles import ProfileStore
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Framing, SubnetConfig, Target
from hwsearch.results import Candidate, SearchResult
from hwsearch.runtime.devices import resolve_target
from hwsearch.runtime.gpus import is_on_gpu
from hwsearch.runtime.hardware import physical_cores
from hwsearch.runtime.model_files import reads_plain_onnx
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import SearchData, search_data
from hwsearch.workflow.deployed import open_judged
from hwsearch.workflow.search import load_study
from hwsearch.workflow.timing import Stopwatch
from hwsearch.workflow.workspace import Workspace

PARITY_IMAGES = 4
CALIBRATION_IMAGES = 16


def export_pick(
    supernet: Supernet,
    study: str,
    *,
    workspace: Workspace,
    out: Path,
    pick: int | None = None,
    precision: Precision = "fp32",
    engines: EngineOptions | None = None,
    settings: SessionSettings | None = None,
    allow_stale: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the bundle of a study's pick; the manifest's latency is measured on its own files.

    Args:
        supernet: the one that was searched.
        study: name of a finished study.
        workspace: holds the study and its profile.
        out: the bundle's directory.
        pick: which subnet of the front, 0 the fastest; None for the study's pick.
        precision: of the engines; it is judged on images that the search never saw, and int8 is
            calibrated on images that the search chose on.
        engines: build TensorRT engines too; for a study on a GPU they are built so that they can
            be timed: on it, with its TensorRT, and for its batch.
        settings: how carefully to measure.
        allow_stale: add to a profile that was begun under other versions.
        progress: who shows the steps.

    Raises:
        HwsearchError: the study is not finished, belongs to another supernet, or a file can't be
            exported, gated or timed.
        DeviceError: the study's device is not here.
        UsageError: the study's target runs other files than a bundle holds, or other engines than
            are asked for.
    """
    progress = progress or SilentProgress()
    result = load_study(workspace, study).result
    if result.supernet_id != supernet.id:
        raise HwsearchError(
            f"Study {study} searched {result.supernet_id}, not {supernet.id}: "
            f"give --supernet {result.supernet}."
        )
    if result.weights_digest != supernet.weights_digest():
        raise HwsearchError(
            f"Study {study} searched a supernet with other weights than the one given: "
            "search again, or give the one that was searched with --supernet."
        )
    candidate = chosen_candidate(result, pick)
    wanted = result.target_of(candidate)
    dynamic_int8 = wanted.runtime == "onnxruntime" and wanted.precision == "int8"
    _check_files_are_timed(study, wanted, precision=precision, engines=engines)
    target = resolve_target(
        device=wanted.device,
        runtime=wanted.runtime,
        precision=wanted.precision,
        threads=wanted.threads,
        batch=wanted.batch,
    )
    if engines:
        engines = ready(for_target(engines, target) if is_on_gpu(target) else engines)
    # What can't be written or timed is told of before anything is judged.
    check_place(out)
    store = ProfileStore(workspace.profiles, target, allow_stale=allow_stale)
    sam = supernet.extract(candidate.subnet)
    data = search_data(
        result.data, framing=result.framing, max_views=result.max_views, seed=result.seed
    )
    with open_judged(supernet, candidate.subnet, target) as segmenter:
        accuracy = evaluate_segmenter(segmenter, data.final, progress=progress).model_copy(
            update={"split": result.final_split}
        )
    stopwatch = Stopwatch(
        supernet,
        store,
        settings or SessionSettings(seed=result.seed),
        progress,
    )
    with stage_bundle(
        out,
        sam=sam,
        geometry=supernet.geometry,
        subnet=candidate.subnet,
        images=[probe.image for probe in _probes(data.final, PARITY_IMAGES)],
        precision=_precision(precision, data),
        engines=engines,
        dynamic_int8=dynamic_int8,
        threads=target.threads,
        progress=progress,
    ) as staged:
        return staged.seal(
            accuracy=accuracy,
            latency=stopwatch.time_files(
                Subject(subnet=staged.subnet, encoder=staged.encoder, decoder=staged.decoder)
            ),
            provenance={
                "study": study,
                "supernet": result.supernet,
                "supernet_id": supernet.id,
                "weights_digest": supernet.weights_digest(),
                "target_latency_ms": result.target_latency_ms,
            },
        )


def export_subnet(
    supernet: Supernet,
    subnet: SubnetConfig,
    *,
    out: Path,
    framing: Framing,
    data: str | None = None,
    precision: Precision = "fp32",
    engines: EngineOptions | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the bundle of any subnet, without a study: nothing is timed or evaluated.

    Args:
        supernet: whose subnet it is.
        subnet: which one.
        out: the bundle's directory.
        framing: what the model is shown of an image.
        data: a data folder or `scenes`, whose images the files are held against; without it, two
            images are drawn. Any precision but fp32 needs it.
        precision: of the engines.
        engines: build TensorRT engines too.
        threads: of ONNX Runtime in the gates; without it, all physical cores.
        progress: who shows the steps.

    Raises:
        UsageError: a precision without data, or engines that can't be.
        DataError: the data can't be used.
        ExportError: a file can't be exported, gated, built or written.
        DeviceError: TensorRT is not installed.
    """
    if precision != "fp32" and data is None:
        raise UsageError(
            f"{precision} is judged on your images: give --data, a folder or 'scenes'."
        )
    if engines:
        engines = ready(engines)
    check_place(out)
    views = CALIBRATION_IMAGES
    chosen = search_data(data, framing=framing, max_views=views) if data else None
    return write_bundle(
        out,
        sam=supernet.extract(subnet),
        geometry=supernet.geometry,
        subnet=subnet,
        images=[p.image for p in _probes(chosen.final, PARITY_IMAGES)] if chosen else None,
        precision=_precision(precision, chosen) if chosen else None,
        engines=engines,
        provenance={"supernet_id": supernet.id, "weights_digest": supernet.weights_digest()},
        threads=threads or physical_cores(),
        progress=progress,
    )


def chosen_candidate(result: SearchResult, pick: int | None) -> Candidate:
    """The study's pick, or a subnet of its front.

    Raises:
        UsageError: the front has no subnet of that number.
    """
    if pick is None:
        return result.pick
    if not 0 <= pick < len(result.front):
        raise UsageError(
            f"There is no pick {pick}: the front of {result.study} has 0 to "
            f"{len(result.front) - 1}, the fastest first."
        )
    return result.front[pick]


def _check_files_are_timed(
    study: str, target: Target, *, precision: Precision, engines: EngineOptions | None
) -> None:
    """Do nothing if the bundle's latency can be that of the files or engines it will hold."""
    if is_on_gpu(target):
        if engines and precision != target.precision:
            raise UsageError(
                f"Study {study} searched for {target.runtime} in {target.precision}, and engines "
                f"in {precision} have another latency: export with --precision {target.precision}."
            )
        if not engines and target.precision != "fp32":
            raise UsageError(
                f"Study {study} searched for engines in {target.precision}, and ONNX in fp32 has "
                f"another latency: export with --format tensorrt --precision {target.precision}."
            )
    elif target.runtime == "onnxruntime" and target.precision == "int8":
        if engines:
            raise UsageError(
                f"Study {study} searched for int8 as ONNX Runtime computes it on a CPU, and no "
                "engine can be built from such files: leave --format tensorrt out, or choose a "
                "pick in fp32 with --pick."
            )
    elif not reads_plain_onnx(target):
        raise UsageError(
            f"Study {study} searched for {target.runtime} in {target.precision}, and the files of "
            "a bundle are ONNX in fp32 in this version: their latency would be another. Search "
            "with --runtime onnxruntime --precision fp32, or with --runtime openvino."
        )


def _precision(precision: Precision, data: SearchData) -> PrecisionOptions | None:
    if precision == "fp32":
        return None
    return PrecisionOptions(
        precision=precision,
        probes=_probes(data.final, PARITY_IMAGES),
        calibration=_probes(data.search, CALIBRATION_IMAGES),
    )


def _probes(chosen: EvaluationSet, count: int) -> list[Probe]:
    return [Probe(view.image, view.boxes) for view in chosen.views[:count]]
