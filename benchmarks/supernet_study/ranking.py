"""Whether inherited accuracy ranks subnets as a short training of their own would."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from hwsearch.errors import UsageError
from hwsearch.records import SubnetConfig
from supernet_study.bands import candidates, sized
from supernet_study.runs import briefly_tuned, trained_supernet
from supernet_study.study import Study, mean_miou

EACH_BAND = 4
FEWEST = 16
RESAMPLES = 1000
Floats = NDArray[np.float64]


def ranking(study: Study, *, steps: int) -> dict[str, Any]:
    """Kendall's τ between inherited mIoU and mIoU after `steps` steps of a subnet's own.

    The two are judged on different objects, search views and final ones, since what the choice of
    objects does to both would look like agreement.

    Subnets are drawn evenly from the size bands, at any resolution, with both ends of the space.
    Beside it stands how well parameters and MACs alone would rank them: what is above that is
    what inherited accuracy adds.
    """
    net = trained_supernet(study)
    resolutions = itertools.cycle(net.space.resolutions)
    drawn = [
        member.config.model_copy(update={"resolution": next(resolutions)})
        for members in candidates(net, seed=study.settings.seed + 1).values()
        for member in members[:EACH_BAND]
    ]
    configs = [net.space.largest, *drawn, net.space.smallest]
    if len(configs) < FEWEST:
        raise UsageError(f"Only {len(configs)} subnets lie in the size bands, fewer than {FEWEST}.")
    pairs = [_pair(study, config, steps) for config in configs]
    tuned = np.array([pair["tuned"] for pair in pairs])
    inherited = np.array([pair["inherited"] for pair in pairs])
    sizes = [sized(net, config) for config in configs]
    return {
        "steps": steps,
        "subnets": len(pairs),
        "kendall_tau": kendalltau(inherited, tuned).statistic,
        "kendall_tau_interval": _interval(inherited, tuned),
        "kendall_tau_of_params": kendalltau([size.params for size in sizes], tuned).statistic,
        "kendall_tau_of_macs": kendalltau([size.macs for size in sizes], tuned).statistic,
        "pairs": pairs,
    }


def _interval(one: Floats, other: Floats) -> tuple[float, float]:
    """95 % percentile bootstrap over subnets."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(one), size=(RESAMPLES, len(one)))
    taus = [kendalltau(one[draw], other[draw]).statistic for draw in draws]
    low, high = np.nanquantile(taus, [0.025, 0.975])
    return float(low), float(high)


def _pair(study: Study, config: SubnetConfig, steps: int) -> dict[str, Any]:
    def judge() -> dict[str, Any]:
        net = trained_supernet(study)
        return {
            "subnet": config.id,
            "inherited": mean_miou(net, config, study.search_sets),
            "tuned": mean_miou(briefly_tuned(study, net, config, steps), config, study.final_sets),
        }

    return study.kept(f"ranking/{config.id}-{steps}-apart", judge)
