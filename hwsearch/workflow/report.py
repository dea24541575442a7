"""The last stage: what a search found, as a page, as JSON and as a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwsearch.predictor.store import load_latency_predictor
from hwsearch.profiles import Profile, ProfileStore
from hwsearch.records import Conditions, SamGeometry, SubnetConfig
from hwsearch.report.page import ProfileRow, write_report
from hwsearch.results import Candidate, SearchResult
from hwsearch.workflow.search import load_study
from hwsearch.workflow.workspace import Workspace

REPORT_NAME = "report.html"


def write_study_report(
    workspace: Workspace, study: str, *, geometry: SamGeometry, overlays: Sequence[Path]
) -> Path:
    """Write a study's page beside its result.

    Args:
        workspace: holds the study, its profile and its predictor.
        study: name of a finished study.
        geometry: the supernet's sizes.
        overlays: pictures of the pick's masks.

    Raises:
        HwsearchError: a part of the study is missing or damaged.
    """
    record = load_study(workspace, study)
    result = record.result
    store = ProfileStore(workspace.profiles, result.target, allow_stale=True)
    profile = store.read(result.supernet_id)
    directory = workspace.predictor(result.target, result.supernet_id)
    predictor = load_latency_predictor(directory)
    configs, latencies_ms = profile.latencies(result.scope)
    rows = [
        ProfileRow(config.id, measured_ms, float(predicted_ms))
        for config, measured_ms, predicted_ms in zip(
            configs, latencies_ms, predictor.predict(configs), strict=True
        )
    ]
    return write_report(
        result,
        geometry=geometry,
        candidates=record.candidates,
        profile_rows=rows,
        predictor_card=(directory / "CARD.md").read_text("utf-8"),
        overlays=overlays,
        conditions=_conditions(profile, result.pick.subnet),
        out=workspace.study(study) / REPORT_NAME,
    )


def result_summary(result: SearchResult, *, bundle: Path | None, report: Path) -> dict[str, object]:
    """The JSON object that `search` and `demo` print.

    `miou` is the accuracy on images that the search never saw, `miou_val` the one it decided by.
    """
    return {
        "study": result.study,
        "trials": result.trials,
        "target_latency_ms": result.target_latency_ms,
        "precision": result.pick.precision,
        "further_targets": _further(result),
        "noise_floor_percent": result.noise_floor_percent,
        "predictor": {
            "model": result.predictor_model,
            "mape_percent": result.predictor_mape_percent,
        },
        "accuracy": {
            "data": result.data,
            "framing": result.framing,
            "prompt": "box",
            "selection": "predicted_iou",
            "miou": result.final_split,
            "miou_val": result.split,
        },
        "largest": _figures(result.largest),
        "pick": candidate_summary(result.pick),
        "bundle": str(bundle) if bundle else None,
        "report": str(report),
    }


def candidate_summary(candidate: Candidate) -> dict[str, object]:
    """The JSON form of a subnet that was chosen; `latency_ms` is a measurement."""
    return _figures(candidate) | {
        "predicted_ms": candidate.predicted_ms,
        "upper_ms": candidate.upper_ms,
        "precision": candidate.precision,
        "subnet": candidate.subnet.model_dump(),
    }


def summary_lines(result: SearchResult) -> list[str]:
    """The same for people."""
    pick, largest = result.pick, result.largest
    return [
        f"{result.trials} subnets tried for {result.target_latency_ms:.4g} ms on "
        f"{result.target.name}.",
        _line("largest", largest, result),
        _line("pick", pick, result) + f" ({', '.join(_savings(pick, largest))})",
        f"  predicted {pick.predicted_ms:.2f} ms, at most {pick.upper_ms:.2f} ms; "
        f"predictor '{result.predictor_model}', cross-validated error "
        f"{result.predictor_mape_percent:.2f} %, noise floor "
        + (
            "unknown"
            if result.noise_floor_percent is None
            else f"{result.noise_floor_percent:.2f} %"
        ),
        f"  subnet {pick.subnet.id}: {pick.subnet.depth} layers at {pick.subnet.resolution} px"
        + (f", in {pick.precision}" if len(result.precisions) > 1 else ""),
        *(_further_line(row) for row in _further(result)),
    ]


def _further(result: SearchResult) -> list[dict[str, object]]:
    """How the pick stands on each of the further targets."""
    return [
        {
            "target": asked.target.name,
            "target_latency_ms": asked.target_latency_ms,
            "latency_ms": found.latency_ms,
            "predicted_ms": found.predicted_ms,
            "upper_ms": found.upper_ms,
            "measured_here": asked.measured_here,
        }
        for asked, found in zip(result.further_targets, result.pick.further_targets, strict=True)
    ]


def _further_line(row: dict[str, object]) -> str:
    limit = f"target {row['target_latency_ms']:.4g} ms"
    if row["measured_here"]:
        return f"  on {row['target']}: {row['latency_ms']:.2f} ms measured, {limit}"
    return (
        f"  on {row['target']}: at most {row['upper_ms']:.2f} ms by its predictor, {limit}; "
        "not measured here"
    )


def _figures(candidate: Candidate) -> dict[str, object]:
    return {
        "miou": candidate.miou_final,
        "miou_val": candidate.miou,
        "params": candidate.params,
        "macs": candidate.macs,
        "latency_ms": candidate.latency_ms,
        "runs": candidate.runs,
    }


def _line(name: str, candidate: Candidate, result: SearchResult) -> str:
    return (
        f"{name:8} mIoU {candidate.miou:.4f} ({result.split}), {candidate.miou_final:.4f} "
        f"({result.final_split}); encoder {candidate.params / 1e6:.2f} M parameters, "
        f"{candidate.macs / 1e9:.3g} GMACs; "
        + (
            "can't be run here"
            if candidate.latency_ms is None
            else f"{candidate.latency_ms:.2f} ms measured"
            + ("" if candidate.runs else ", can't be run on all targets")
        )
    )


def _savings(pick: Candidate, largest: Candidate) -> list[str]:
    smaller = f"{_less(pick.params, largest.params)} smaller"
    if pick.latency_ms is None or largest.latency_ms is None:
        return [smaller]
    return [smaller, f"{_less(pick.latency_ms, largest.latency_ms)} faster"]


def _less(value: float, whole: float) -> str:
    return f"{100 * (1 - value / whole):.0f} %"


def _conditions(profile: Profile, pick: SubnetConfig) -> Conditions | None:
    """Those of the pick's last measurement: others may have been measured for other studies."""
    return next(
        (
            row.conditions
            for row in reversed(profile.measurements)
            if row.subnet_id == pick.id and row.error is None and row.conditions
        ),
        None,
    )
