"""The claims table: subnets of a size against the full model fine-tuned as long."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np

from hwsearch.evaluation import box_floor
from hwsearch.evaluation.intervals import Clustered, mean_interval
from hwsearch.records import SubnetConfig
from hwsearch.supernet.store import load_supernet
from hwsearch.supernet.supernet import Supernet
from supernet_study.bands import BANDS, best_of_band, candidates, sized
from supernet_study.runs import PASSES, fine_tuned_base, trained_alone, trained_supernet
from supernet_study.study import Row, Study, ious_by_set, names_of

BASELINE = "base, fine-tuned as long"
CURVE_SHARES = tuple(share / 12 for share in range(13))


def claims(study: Study, *, alone: tuple[float, ...]) -> list[Row]:
    """One row for each model of the table.

    `gain` is the difference to the baseline, the base model fine-tuned as long, on the same
    objects; `gain_interval` is its 95 % interval by a bootstrap over images.

    Args:
        study: data, budget, and where results are kept.
        alone: bands whose best architecture is also trained on its own.
    """
    base, net = load_supernet(study.start), trained_supernet(study)
    largest, smallest = base.space.largest, base.space.smallest
    baseline = _row(study, BASELINE, fine_tuned_base(study), largest)
    rows = [
        _row(study, "base, not trained further", base, largest),
        baseline,
        _row(study, "supernet, largest", net, largest),
    ]
    for band, config in chosen_subnets(study).items():
        name = f"{100 * band:.0f} % smaller"
        rows.append(_row(study, f"supernet, {name}", net, config))
        if band in alone:
            single = trained_alone(study, f"{100 * band:.0f}", config)
            rows.append(_row(study, f"trained alone, {name}", single, config))
    rows.append(_row(study, "supernet, smallest", net, smallest))
    names = names_of(study.final_sets)
    floors = dict(zip(names, map(box_floor, study.final_sets), strict=True))
    return [
        *(_summed_up(study, row, baseline) for row in rows),
        {"model": "the box as mask", "miou": fmean(floors.values()), "sets": floors},
    ]


def chosen_subnets(study: Study) -> dict[float, SubnetConfig]:
    """Band → its best subnet by the search views."""

    def search() -> dict[str, Any]:
        net = trained_supernet(study)
        found = {}
        for band, members in candidates(net, seed=study.settings.seed).items():
            if not members:
                study.progress.log(f"No subnet of this space is {100 * band:.0f} % smaller.")
                continue
            found[str(band)] = best_of_band(study, net, band, members).config.model_dump()
        return found

    kept = study.kept("bands", search)
    return {
        band: SubnetConfig.model_validate(kept[str(band)]) for band in BANDS if str(band) in kept
    }


def curve(study: Study) -> list[Row]:
    """The regular subnets from the smallest to the largest, at the full resolution."""
    net = trained_supernet(study)
    baseline = _row(study, BASELINE, fine_tuned_base(study), net.space.largest)
    resolution = net.space.largest.resolution
    rows = []
    for share in CURVE_SHARES:
        config = net.space.between(share).model_copy(update={"resolution": resolution})
        rows.append(_row(study, f"regular, {share:.2f}", net, config))
    return [_summed_up(study, row, baseline) for row in rows]


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
    return study.kept(f"row-{name}", judge)


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
