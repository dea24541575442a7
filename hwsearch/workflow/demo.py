"""All stages in a row, on the shipped supernet and on composed scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwsearch.errors import DeviceError, ProfileError
from hwsearch.export.engines import EngineOptions
from hwsearch.export.load import load_bundle
from hwsearch.profiler.session import SessionSettings
from hwsearch.profiles import Profile, ProfileStore
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Target, short_digest
from hwsearch.results import SearchResult
from hwsearch.runtime.tensorrt import load_tensorrt
from hwsearch.supernet.store import load_supernet
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import search_data
from hwsearch.workflow.export import export_pick
from hwsearch.workflow.fit import fit_latency_predictor
from hwsearch.workflow.prepare import SearchRequest
from hwsearch.workflow.profile import profile_supernet
from hwsearch.workflow.report import write_study_report
from hwsearch.workflow.search import search_subnets
from hwsearch.workflow.showcase import draw_showcase, draw_views
from hwsearch.workflow.targets import single_target
from hwsearch.workflow.workspace import Workspace

DATA = "scenes"
TARGET_SHARE = 0.6
SAMPLES = 32
TRIALS = 64
VIEWS = 48
OVERLAY_SCENES = 4
# Finished within minutes; the defaults of `hwsearch profile` take more care.
SETTINGS = SessionSettings(budget_s=12.0, relative_half_width=0.015)
# An engine for another GPU architecture can be built without one; Ada is a common one.
GPU_ARCHS = ("SM89",)


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves.

    `profiled` subnets have a measured latency; of these, `steady` were measured while the machine
    kept its speed, and the predictor is fitted on them, or on all where they are too few. `bundle`
    and `report` lie in the workspace; `engine_note` says whether TensorRT engines are in the
    bundle, and why not otherwise.
    """

    search: SearchResult
    profiled: int
    steady: int
    bundle: Path
    report: Path
    overlays: tuple[Path, ...]
    engine_note: str


def run_demo(
    target: Target, *, workspace: Workspace, seed: int = 0, progress: Progress | None = None
) -> DemoResult:
    """Profile, fit, search, export and report; run again, it goes on where it was.

    The target latency is 60 % of the largest subnet's.

    Args:
        target: where the subnets run.
        workspace: where everything is written.
        seed: source of all draws.
        progress: who shows the stages.

    Raises:
        HwsearchError: whatever a stage raises.
    """
    progress = progress or SilentProgress()
    supernet = load_supernet("demo")
    progress.log(f"1/5  Profiling {SAMPLES} subnets on {target.name}.")
    profile_supernet(
        supernet,
        target=target,
        workspace=workspace,
        samples=SAMPLES,
        settings=SETTINGS,
        seed=seed,
        progress=progress,
    )
    progress.log("2/5  Fitting the latency predictor.")
    fit_latency_predictor(
        supernet.geometry, target=target, workspace=workspace, seed=seed, progress=progress
    )
    store = ProfileStore(workspace.profiles, target)
    target_ms = round(TARGET_SHARE * _first_latency_ms(store.read(supernet.id), supernet), 2)
    # Another target, machine or supernet makes another study.
    purpose = f"{target.fingerprint} {supernet.weights_digest()} {target_ms} {seed}"
    study = f"demo-{short_digest(purpose, 6)}"
    request = SearchRequest(
        supernet_name="demo",
        targets=(single_target(target, target_ms),),
        data=DATA,
        framing="image",
        study=study,
        trials=TRIALS,
        max_views=VIEWS,
        seed=seed,
    )
    progress.log(f"3/5  Searching: {TRIALS} trials under {target_ms:g} ms.")
    result = search_subnets(
        supernet, request, workspace=workspace, settings=SETTINGS, progress=progress
    )
    progress.log("4/5  Exporting the pick.")
    engines, note = _engines()
    bundle = export_pick(
        supernet,
        study,
        workspace=workspace,
        out=workspace.study(study) / "bundle",
        engines=engines,
        settings=SETTINGS,
        progress=progress,
    )
    progress.log("5/5  Drawing masks and writing the report.")
    overlays = _overlays(bundle, workspace.study(study) / "overlays", seed, target.threads)
    page = write_study_report(workspace, study, geometry=supernet.geometry, overlays=overlays)
    return DemoResult(
        search=result,
        profiled=len(store.read(supernet.id).latencies(include_drifted=True)[0]),
        steady=len(store.read(supernet.id).measured_ids),
        bundle=bundle,
        report=page,
        overlays=tuple(overlays),
        engine_note=note,
    )


def _first_latency_ms(profile: Profile, supernet: Supernet) -> float:
    """What the largest subnet took at first: later measurements would make it another study."""
    largest = supernet.space.largest
    for row in profile.measurements:
        if row.subnet_id == largest.id and row.error is None:
            return row.latency_ms()
    raise ProfileError(f"The largest subnet could not be timed: {profile.failed[largest.id]}")


def _engines() -> tuple[EngineOptions | None, str]:
    try:
        trt = load_tensorrt()
    except DeviceError as error:
        return None, f"no TensorRT engines: {error}"
    archs = GPU_ARCHS if trt.flavour == "tensorrt-rtx" else ()
    return EngineOptions(trt=trt, gpu_archs=archs), f"engines by {trt.flavour} {trt.version}"


def _overlays(bundle: Path, folder: Path, seed: int, threads: int) -> list[Path]:
    views = search_data(DATA, framing="image", max_views=OVERLAY_SCENES, seed=seed).final.views
    with load_bundle(bundle, threads=threads) as loaded:
        return [
            *draw_showcase(loaded, folder),
            *draw_views(loaded, views, folder, "scene"),
        ]
