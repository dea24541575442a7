"""The accuracy of one subnet on any number of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.data.dataset import SPLITS, Split
from hwsearch.data.open import open_dataset
from hwsearch.errors import UsageError
from hwsearch.evaluation import box_floor, evaluate, evaluation_set
from hwsearch.progress import Progress
from hwsearch.records import Accuracy, Framing, SubnetConfig
from hwsearch.supernet.store import load_manifest, load_supernet
from hwsearch.supernet.supernet import Supernet


@dataclass(frozen=True)
class SubnetAccuracy:
    """A subnet's accuracy by data set; means over sets weigh each set alike.

    `box_floors` is what the prompt itself, taken as the mask, would score on each set.
    """

    subnet: SubnetConfig
    params: int
    macs: int
    sets: dict[str, Accuracy]
    box_floors: dict[str, float]

    @property
    def miou(self) -> float:
        """Mean over the sets."""
        return fmean(accuracy.miou for accuracy in self.sets.values())

    def as_json(self) -> dict[str, object]:
        """The form that `hwsearch supernet evaluate --json` prints."""
        return {
            "miou": self.miou,
            "miou_oracle": fmean(accuracy.miou_oracle for accuracy in self.sets.values()),
            "box_floor": fmean(self.box_floors.values()),
            "instances": sum(accuracy.instances for accuracy in self.sets.values()),
            "params": self.params,
            "macs": self.macs,
            "subnet": self.subnet.model_dump(),
            "sets": {
                name: accuracy.model_dump() | {"box_floor": self.box_floors[name]}
                for name, accuracy in self.sets.items()
            },
        }


def evaluate_subnet(
    supernet: Path | str,
    *,
    data: Sequence[str],
    subnet: str,
    split: str,
    max_views: int | None,
    framing: Framing | None,
    seed: int,
    progress: Progress,
) -> SubnetAccuracy:
    """Evaluate `largest`, `smallest` or a subnet from a file.

    Raises:
        CheckpointError: the supernet can't be read.
        DataError: a data set can't be used.
        UsageError: there is no such subnet or split.
    """
    loaded = load_supernet(supernet)
    config = named_subnet(loaded, subnet)
    sam = loaded.extract(config)
    sets, floors = {}, {}
    for source in data:
        chosen = evaluation_set(
            open_dataset(source, named_split(split)),
            framing=framing or load_manifest(supernet).framing,
            max_views=max_views,
            seed=seed,
        )
        name = chosen.data if chosen.data not in sets else source
        sets[name] = evaluate(sam, chosen, progress=progress)
        floors[name] = box_floor(chosen)
    return SubnetAccuracy(
        subnet=config,
        params=encoder_params(loaded.geometry, config),
        macs=encoder_macs(loaded.geometry, config),
        sets=sets,
        box_floors=floors,
    )


def named_subnet(supernet: Supernet, name: str) -> SubnetConfig:
    """The subnet that `largest`, `smallest` or a JSON file names.

    Raises:
        UsageError: the file is missing, damaged, or its subnet is not in the search space.
    """
    if name == "largest":
        return supernet.space.largest
    if name == "smallest":
        return supernet.space.smallest
    path = Path(name)
    if not path.is_file():
        raise UsageError(
            f"There is no subnet {name!r}: say largest, smallest or a JSON file of a SubnetConfig."
        )
    config = SubnetConfig.from_json(path.read_bytes())
    supernet.space.validate_config(config)
    return config


def named_split(text: str) -> Split:
    """The split of that name.

    Raises:
        UsageError: there is none.
    """
    for split in SPLITS:
        if split == text:
            return split
    raise UsageError(f"There is no split {text!r}: take {', '.join(SPLITS)}.")
