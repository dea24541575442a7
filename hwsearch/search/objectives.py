"""What the search is given: how to judge, predict and measure a subnet.

The search itself knows neither networks nor runtimes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.records import SubnetConfig

Evaluate = Callable[[SubnetConfig], float]
Predict = Callable[[Sequence[SubnetConfig]], NDArray[np.float64]]
MeasureMany = Callable[[Sequence[SubnetConfig]], Sequence[float]]
Refit = Callable[[Sequence[SubnetConfig], Sequence[float]], None]


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """The callables that a search needs.

    Attributes:
        evaluate: mIoU of one subnet on the search's split, 0 to 1.
        predict: predicted latencies in milliseconds, shape (n,).
        upper: one-sided upper bounds of the latencies in milliseconds, shape (n,).
        measure: measured latencies in milliseconds, all subnets in one interleaved session.
        refit: takes new measurements, so that `predict` and `upper` answer better from then on.
    """

    evaluate: Evaluate
    predict: Predict
    upper: Predict
    measure: MeasureMany
    refit: Refit
