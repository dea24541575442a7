"""The stage that ships: a chosen subnet as a bundle, timed as it is."""

from __future__ import annotations

from pathlib import Path

from hwsearch.data.framing import View
from hwsearch.errors import HwsearchError, UsageError
from hwsearch.evaluation import EvaluationSet, evaluate
from hwsearch.export.bundle import StagedBundle, stage_bundle
from hwsearch.export.engines import EngineOptions
from hwsearch.export.pixels import Pixels
from hwsearch.profiler.session import SessionSettings, Subject
from hwsearch.profiles import ProfileStore
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Candidate, Measurement, SearchResult
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.accuracy import DEFAULT_VIEWS, search_data
from hwsearch.workflow.search import load_study
from hwsearch.workflow.timing import Stopwatch, exported
from hwsearch.workflow.workspace import Workspace

PARITY_IMAGES = 4


def export_pick(
    supernet: Supernet,
    study: str,
    *,
    workspace: Workspace,
    out: Path,
    pick: int | None = None,
    engines: EngineOptions | None = None,
    settings: SessionSettings | None = None,
    max_views: int = DEFAULT_VIEWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write the bundle of a study's pick; the manifest's latency is measured on its own files.

    Args:
        supernet: the one that was searched.
        study: name of a finished study.
        workspace: holds the study and its profile.
        out: the bundle's directory.
        pick: which subnet of the front, 0 the fastest; None for the study's pick.
        engines: build TensorRT engines too.
        settings: how carefully to measure.
        max_views: images or objects that the bundle's accuracy is found on.
        seed: draws those views.
        progress: who shows the steps.

    Raises:
        HwsearchError: the study is not finished, belongs to another supernet, or a file can't be
            exported, gated or timed.
    """
    progress = progress or SilentProgress()
    result = load_study(workspace, study).result
    if result.supernet_id != supernet.id:
        raise HwsearchError(
            f"Study {study} searched {result.supernet_id}, not {supernet.id}: "
            f"give --supernet {result.supernet}."
        )
    candidate = chosen_candidate(result, pick)
    sam = supernet.extract(candidate.subnet)
    final = search_data(result.data, framing=result.framing, max_views=max_views, seed=seed).final
    accuracy = evaluate(sam, final, progress=progress).model_copy(
        update={"split": result.final_split}
    )
    stopwatch = Stopwatch(
        supernet,
        ProfileStore(workspace.profiles, result.target, allow_stale=True),
        settings or SessionSettings(seed=seed),
        progress,
    )
    with stage_bundle(
        out,
        sam=sam,
        geometry=supernet.geometry,
        subnet=candidate.subnet,
        images=_images(final),
        engines=engines,
        threads=result.target.threads,
        progress=progress,
    ) as staged:
        return staged.seal(
            accuracy=accuracy,
            latency=_timed(stopwatch, staged),
            provenance={
                "study": study,
                "supernet": result.supernet,
                "supernet_id": supernet.id,
                "weights_digest": supernet.weights_digest(),
                "target_latency_ms": result.target_latency_ms,
            },
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


def _timed(stopwatch: Stopwatch, staged: StagedBundle) -> Measurement:
    shipped = Subject(subnet=staged.subnet, encoder=staged.encoder, decoder=staged.decoder)
    with exported(stopwatch.supernet, [stopwatch.reference], stopwatch.progress) as (reference,):
        (measurement,) = stopwatch.time([shipped], reference=reference)
    if measurement.error is not None:
        raise HwsearchError(f"The exported files could not be timed: {measurement.error}")
    return measurement


def _images(final: EvaluationSet) -> list[Pixels]:
    views: tuple[View, ...] = final.views[:PARITY_IMAGES]
    return [view.image for view in views]
