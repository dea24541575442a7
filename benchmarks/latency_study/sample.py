"""Which of the subnets at hand to fit on: much as `hwsearch profile` chooses what it measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwsearch.predictor.features import SCHEMA
from hwsearch.predictor.information import most_informative, relative_costs
from hwsearch.predictor.sampling import NEIGHBOURS

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def spread_rows(
    features: Array,
    pool: Rows,
    n: int,
    rng: np.random.Generator,
    *,
    neighbours: int = NEIGHBOURS,
) -> Rows:
    """Rows over all sizes: both ends, so that nothing is extrapolated, and n - 2 between them.

    The rows between the ends are parted evenly by size. Of a few rows of each part, drawn at
    random, the most informative one is taken, part after part in random order. A profile draws a
    thousand subnets and more to find `NEIGHBOURS` of a size; here the choice is among fewer where
    a part has fewer.

    Args:
        features: (m, f), columns as `SCHEMA` has them.
        pool: the rows to choose from; those with the least and the most MACs are in it.
        n: how many to choose.
        rng: source of what is random.
        neighbours: how many rows of a part are drawn; with one, size alone decides.
    """
    ordered = pool[np.argsort(features[pool, SCHEMA.places(["macs"])[0]])]
    parts = np.array_split(ordered[1:-1], n - 2)
    relative = relative_costs(features, features)
    chosen = [int(ordered[0]), int(ordered[-1])]
    for place in rng.permutation(len(parts)):
        part = parts[place]
        drawn = rng.choice(part, min(neighbours, len(part)), replace=False)
        chosen.append(most_informative(relative, chosen, drawn.tolist()))
    return np.array(chosen)
