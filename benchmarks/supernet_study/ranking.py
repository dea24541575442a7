"""Whether inherited accuracy ranks subnets as a short training of their own would."""

from __future__ import annotations

import itertools
from typing import Any

from scipy.stats import kendalltau

from hwsearch.records import SubnetConfig
from supernet_study.bands import candidates
from supernet_study.runs import briefly_tuned, trained_supernet
from supernet_study.study import Study, mean_miou

EACH_BAND = 4


def ranking(study: Study, *, steps: int) -> dict[str, Any]:
    """Kendall's τ between inherited mIoU and mIoU after `steps` steps of a subnet's own.

    Subnets are drawn evenly from the size bands, at any resolution, with both ends of the space.
    """
    net = trained_supernet(study)
    resolutions = itertools.cycle(net.space.resolutions)
    drawn = [
        member.config.model_copy(update={"resolution": next(resolutions)})
        for members in candidates(net, seed=study.settings.seed + 1).values()
        for member in members[:EACH_BAND]
    ]
    configs = [net.space.largest, *drawn, net.space.smallest]
    pairs = [_pair(study, config, steps) for config in configs]
    tau = kendalltau([pair["inherited"] for pair in pairs], [pair["tuned"] for pair in pairs])
    return {"steps": steps, "subnets": len(pairs), "kendall_tau": tau.statistic, "pairs": pairs}


def _pair(study: Study, config: SubnetConfig, steps: int) -> dict[str, Any]:
    def judge() -> dict[str, Any]:
        net = trained_supernet(study)
        return {
            "subnet": config.id,
            "inherited": mean_miou(net, config, study.search_sets),
            "tuned": mean_miou(briefly_tuned(study, net, config, steps), config, study.search_sets),
        }

    return study.kept(f"ranking/{config.id}", judge)
