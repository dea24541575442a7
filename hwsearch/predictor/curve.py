"""How the error falls with the number of measured subnets, with a source and without."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from pydantic import PositiveInt

from hwsearch.errors import PredictorError
from hwsearch.predictor.crossvalidation import ModelScore, score
from hwsearch.predictor.latency_predictor import MIN_SAMPLES, LatencyPredictor
from hwsearch.progress import Progress, SilentProgress
from hwsearch.records import Record, Share, SubnetConfig, Target

FEW = (5, 10, 20, 50)
MIN_HELD_OUT = 10


class CurvePoint(Record):
    """Mean errors on the held-out subnets at one number of measured ones.

    `score` is named after what was fitted: "transfer" with the source, "scratch" without.
    `covered` is the share, from 0 to 1, that intervals of 90 % hold.
    """

    measured: PositiveInt
    held_out: PositiveInt
    score: ModelScore
    covered: Share


def few_shot_curve(
    source: LatencyPredictor,
    target: Target,
    configs: Sequence[SubnetConfig],
    latencies_ms: ArrayLike,
    *,
    sizes: Sequence[int] = FEW,
    draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[CurvePoint, ...]:
    """Fit on a few rows of a new target, drawn again and again, and score on all the others.

    Below the number of rows that a fit without a source needs, there is "transfer" alone.

    Args:
        source: a fitted predictor of another target.
        target: where the latencies were measured.
        configs: distinct subnets measured there.
        latencies_ms: (n,) their latencies in milliseconds.
        sizes: how many of them to fit on; those that leave fewer than ten others are left out.
        draws: how many random draws are averaged.
        seed: source of the draws.
        progress: told of each fit.

    Raises:
        PredictorError: no size leaves enough rows, or as `LatencyPredictor.fit`.
    """
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    usable = [size for size in sizes if size <= len(configs) - MIN_HELD_OUT]
    if not usable:
        raise PredictorError(
            f"A curve can't be made of {len(configs)} subnets: measure at least "
            f"{min(sizes) + MIN_HELD_OUT}."
        )
    progress = progress or SilentProgress()
    points: list[CurvePoint] = []
    with progress.task("few-shot curve", total=len(usable) * draws) as advance:
        for size in usable:
            found: dict[str, list[ModelScore]] = {}
            covered: dict[str, list[float]] = {}
            for draw in range(draws):
                order = np.random.default_rng((seed, draw)).permutation(len(configs))
                for start in (source, None) if size >= MIN_SAMPLES else (source,):
                    fitted = LatencyPredictor(
                        source.geometry,
                        target,
                        source.supernet_id,
                        scope=source.scope,
                        source=start,
                    ).fit([configs[row] for row in order[:size]], latencies[order[:size]])
                    others = [configs[row] for row in order[size:]]
                    measured = latencies[order[size:]]
                    name = "transfer" if start else "scratch"
                    held_out = score(name, fitted.predict(others)[None], measured)
                    found.setdefault(name, []).append(held_out)
                    low, high = fitted.interval(others)
                    inside = float(((low <= measured) & (measured <= high)).mean())
                    covered.setdefault(name, []).append(inside)
                advance(note=f"{size} subnets")
            points += [
                CurvePoint(
                    measured=size,
                    held_out=len(configs) - size,
                    score=_mean(scores),
                    covered=float(np.mean(covered[name])),
                )
                for name, scores in found.items()
            ]
    return tuple(points)


def _mean(scores: Sequence[ModelScore]) -> ModelScore:
    """Each figure's mean over those that have it."""
    means: dict[str, float | None] = {}
    for field in set(ModelScore.model_fields) - {"name"}:
        known = [value for one in scores if (value := getattr(one, field)) is not None]
        means[field] = float(np.mean(known)) if known else None
    return ModelScore.model_validate({"name": scores[0].name, **means})
