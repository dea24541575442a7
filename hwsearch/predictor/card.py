"""CARD.md: what a stored latency predictor is, how well it predicts, and how to use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwsearch.predictor.calibration import found_coverage, two_sided
from hwsearch.predictor.crossvalidation import CrossValidation, ModelScore
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.records import Target

SCATTER_FILE = "scatter.svg"
COVERAGES = (0.8, 0.9, 0.95)
SCOPE_WORDS = {
    "full": "image encoder plus decoder with one prompt",
    "encoder": "image encoder",
    "decoder": "decoder with one prompt",
}


def card_text(
    predictor: LatencyPredictor, *, folder: str, noise_floor_percent: float | None = None
) -> str:
    """The card of a fitted latency predictor, in Markdown.

    Args:
        predictor: a fitted one.
        folder: the path to load it from, as the card shall show it.
        noise_floor_percent: see `profiler.noise`, if known.
    """
    sections = (
        f"# Latency predictor: {predictor.target.name}",
        _conditions(predictor),
        "## Error on subnets that it was not fitted on",
        _method(predictor.cv_),
        _score_table(predictor.cv_),
        f"![Predicted against measured latency]({SCATTER_FILE})",
        _noise_floor(noise_floor_percent),
        "## Intervals",
        _interval_table(predictor),
        "## Use",
        _usage(predictor.target, folder),
    )
    return "\n\n".join(sections) + "\n"


def _conditions(predictor: LatencyPredictor) -> str:
    target, latencies = predictor.target, predictor.latencies_ms_
    resolutions = sorted({config.resolution for config in predictor.configs_})
    depths = sorted({config.depth for config in predictor.configs_})
    rows = (
        ("device", f"{target.device_name} ({target.device})"),
        ("runtime", f"{target.runtime} {target.runtime_version}"),
        ("precision, threads, batch", f"{target.precision}, {target.threads}, {target.batch}"),
        ("target fingerprint", f"`{target.fingerprint}`"),
        ("supernet", f"{predictor.supernet_id} (geometry {predictor.geometry.id})"),
        ("what is predicted", f"{SCOPE_WORDS[predictor.scope]}, milliseconds"),
        ("subnets measured", f"{len(latencies)}"),
        ("their latencies", f"{latencies.min():.4g} to {latencies.max():.4g} ms"),
        ("their resolutions", ", ".join(map(str, resolutions))),
        ("their depths", f"{depths[0]} to {depths[-1]} layers"),
        ("model", _model(predictor)),
        *_source(predictor.source),
    )
    return _table(("", ""), rows)


def _source(source: LatencyPredictor | None) -> tuple[tuple[str, str], ...]:
    if source is None:
        return ()
    return (("transferred from", f"{source.target.name}, {len(source.configs_)} subnets"),)


def _model(predictor: LatencyPredictor) -> str:
    hyper = ", ".join(f"{name} {value:.4g}" for name, value in predictor.choice_.hyper.items())
    return f"{predictor.model_name_} ({hyper})" if hyper else predictor.model_name_


def _method(cv: CrossValidation) -> str:
    return (
        f"{cv.folds}-fold cross-validation, {cv.repeats} times, over {cv.n} subnets. Each fold "
        "predicted by the model that the other folds choose gives the error to expect: "
        f"**{cv.mape_percent:.2f} %** on average, {100 * cv.within_5_percent:.0f} % of the subnets "
        f"within 5 %, Kendall τ {_correlation(cv.kendall_tau)}. Each model by itself is below; the "
        "baselines are the best constant, and the best straight lines over parameters and over "
        "MACs."
    )


def _score_table(cv: CrossValidation) -> str:
    rows = [
        *(_score_row(score, chosen=score.name == cv.name) for score in cv.models),
        *(_score_row(score, chosen=False) for score in cv.baselines),
    ]
    head = ("model", "mean abs. error", "within 5 %", "within 10 %", "Kendall τ", "Spearman ρ")
    return _table(head, rows)


def _score_row(score: ModelScore, *, chosen: bool) -> tuple[str, ...]:
    return (
        f"**{score.name}** (chosen)" if chosen else score.name,
        f"{score.mape_percent:.2f} %",
        f"{100 * score.within_5_percent:.0f} %",
        f"{100 * score.within_10_percent:.0f} %",
        _correlation(score.kendall_tau),
        _correlation(score.spearman),
    )


def _correlation(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _noise_floor(percent: float | None) -> str:
    if percent is None:
        return "Noise floor: unknown (no subnet that could be relied on was measured again)."
    return (
        f"Noise floor: {percent:.2f} %, the mean error of true latencies against one measurement "
        "each, found from subnets that were measured on two occasions. No predictor can be shown "
        "to be better than that."
    )


def _interval_table(predictor: LatencyPredictor) -> str:
    errors, configs = predictor.studentised_, predictor.configs_
    predicted = predictor.predict(configs)
    rows = []
    for coverage in COVERAGES:
        _, high = predictor.interval(configs, coverage)
        upper = predictor.upper(configs, coverage)
        how = (
            "extrapolated: too few subnets"
            if two_sided(errors, coverage).extrapolated
            else "quantile of the errors"
        )
        rows.append(
            (
                f"{100 * coverage:.0f} %",
                f"× or ÷ {_median(high / predicted)}",
                f"× {_median(upper / predicted)}",
                f"{100 * found_coverage(errors, coverage):.0f} %",
                how,
            )
        )
    head = ("coverage", "interval", "upper bound", "found out of fold", "how")
    return (
        "Conformal, from the cross-validated errors: approximate, for any subnets of the search "
        "space. The factors are the median of those at the measured subnets; where these tell "
        "less, or scatter more, they are larger.\n\n" + _table(head, rows)
    )


def _median(factors: NDArray[np.float64]) -> str:
    return f"{np.median(factors):.3f}"


def _usage(target: Target, folder: str) -> str:
    return (
        "```python\n"
        "import hwsearch\n\n"
        f'predictor = hwsearch.load_latency_predictor("{folder}")\n'
        "predictor.predict([config])                  # milliseconds\n"
        "predictor.interval([config], coverage=0.9)   # (low, high)\n"
        "predictor.upper([config], coverage=0.9)      # what a search holds against its target\n"
        "```\n\n"
        f"Fitted for {target.runtime} {target.runtime_version}: with another version, device, "
        "precision, number of threads or batch, profile and fit again."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
