"""The claims table: subnets of a size against the full model fine-tuned as long."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from hwsearch.evaluation import box_floor
from hwsearch.evaluation.intervals import Clustered, mean_interval
from hwsearch.records import SubnetConfig
from hwsearch.space import SearchSpace
from hwsearch.supernet.supernet import Supernet
from supernet_study.bands import BANDS, best_of_band, candidates, regular, sized
from supernet_study.runs import PASSES, fine_tuned_base, trained_alone, trained_supernet
from supernet_study.study import Row, Study, ious_by_set, names_of

BASELINE = "base, fine-tuned as long"
CURVE_SHARES = {round(part / 12, 2): part / 12 for part in range(13)}  # by their names


def claims(study: Study) -> list[Row]:
    """One row for each model of the table.

    `gain` is the difference to the baseline, the base model fine-tuned as long, on the same
    objects; `gain_interval` is its 95 % interval by a bootstrap over images.
    """
    base, net = study.untrained(), trained_supernet(study)
    largest, smallest = base.space.largest, base.space.smallest
    baseline = _baseline(study)
    rows = [
        _row(study, "base, not trained further", base, largest),
        baseline,
        _row(study, "supernet, largest", net, largest),
    ]
    for band, config in chosen_subnets(study).items():
        name = f"{100 * band:.0f} % smaller"
        rows.append(_row(study, f"supernet, {name}", net, config))
    rows.append(_row(study, "supernet, smallest", net, smallest))
    names = names_of(study.final_sets)
    floors = dict(zip(names, map(box_floor, study.final_sets), strict=True))
    return [
        *(_summed_up(study, row, baseline) for row in rows),
        {"model": "the box as mask", "miou": fmean(floors.values()), "sets": floors},
    ]


def chosen_subnets(study: Study) -> dict[float, SubnetConfig]:
    """Band → its best subnet by the search views."""
    found = {band: chosen_in_band(study, band) for band in BANDS}
    return {band: config for band, config in found.items() if config is not None}


def chosen_in_band(study: Study, band: float) -> SubnetConfig | None:
    """The best subnet of one band by the search views, or None where the space has none."""

    def search() -> dict[str, Any] | None:
        net = trained_supernet(study)
        drawn = candidates(net, seed=study.settings.seed, bands=[band])
        members = [*regular(net, band), *drawn[band]]
        if not members:
            study.progress.log(f"No subnet of this space is {100 * band:.0f} % smaller.")
            return None
        return best_of_band(study, net, band, members).config.model_dump()

    kept = study.kept(f"bands/{band:.2f}-{study.proposals}-{study.finalists}", search)
    return None if kept is None else SubnetConfig.model_validate(kept)


def curve(study: Study) -> list[Row]:
    """The regular subnets from the smallest to the largest, at the full resolution."""
    net = trained_supernet(study)
    rows = [
        _row(study, f"regular, {share:.2f}", net, config)
        for share, config in regular_subnets(net.space).items()
    ]
    return [_summed_up(study, row, _baseline(study)) for row in rows]


def compared_alone(study: Study, shares: Sequence[float]) -> list[Row]:
    """Regular subnets, each inherited from the supernet and trained as long on its own.

    These architectures were not chosen by the supernet's accuracies, which would favour it.

    Args:
        study: data, budget, and where results are kept.
        shares: of `CURVE_SHARES`.
    """
    regular = regular_subnets(study.untrained().space)
    alone = {share: trained_alone(study, f"{share:.2f}", regular[share]) for share in shares}
    net = trained_supernet(study)
    rows = []
    for share, single in alone.items():
        rows.append(_row(study, f"regular, {share:.2f}", net, regular[share]))
        rows.append(_row(study, f"trained alone, {share:.2f}", single, regular[share]))
    return [_summed_up(study, row, _baseline(study)) for row in rows]


def regular_subnets(space: SearchSpace) -> dict[float, SubnetConfig]:
    """Share of the way from the smallest to the largest → subnet at the full resolution."""
    resolution = space.largest.resolution
    return {
        name: space.between(share).model_copy(update={"resolution": resolution})
        for name, share in CURVE_SHARES.items()
    }


def _baseline(study: Study) -> Row:
    net = fine_tuned_base(study)
    return _row(study, BASELINE, net, net.space.largest)


def _row(study: Study, model: str, net: Supernet, config: SubnetConfig) -> Row:
    """Size, and the IoU of each object, so that models can be compared object by object."""

    def judge() -> Row:
        size = sized(net, config)
        return {
            "model": model,
            "subnet": config.model_dump(),
            "params": size.params,
            "macs": size.macs,
            "ious": ious_by_set(net, config, study.final_sets),
            "outside": ious_by_set(net, config, study.outside_sets),
        }

    name = "".join(letter if letter.isalnum() else "-" for letter in model)
    return study.kept(f"row-{name}-{config.id}", judge)


def _summed_up(study: Study, row: Row, baseline: Row) -> Row:
    sets = {name: fmean(ious) for name, ious in row["ious"].items()}
    gains = [
        Clustered(
            np.array(row["ious"][name]) - np.array(baseline["ious"][name]),
            chosen.clusters,
        )
        for name, chosen in zip(names_of(study.final_sets), study.final_sets, strict=True)
    ]
    return {
        **{key: row[key] for key in ("model", "subnet", "params", "macs")},
        "miou": fmean(sets.values()),
        "gain": fmean(gain.values.mean() for gain in gains),
        "gain_interval": mean_interval(gains),
        "sets": sets,
        "outside": {name: fmean(ious) for name, ious in row["outside"].items()},
        "subnet_passes_per_step": PASSES if row["model"].startswith(("supernet", "regular")) else 1,
    }
