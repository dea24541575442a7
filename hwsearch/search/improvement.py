"""How much of the front an untried deployment may add: its expected hypervolume improvement.

Accuracy is uncertain, cost is as good as known. Then the expectation has a closed form: between
two costs at which the front steps up, all that is gained is an expected improvement over one
accuracy, times the width of the step (Emmerich and others, Hypervolume-based expected
improvement, 2011, with one of two objectives certain).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hwsearch.search.pareto import pareto_front

Array = NDArray[np.float64]


def expected_gains(
    points: Array,
    *,
    means: Array,
    deviations: Array,
    costs: Array,
    worst: tuple[float, float],
    at_the_end: float = 0.0,
) -> Array:
    """Expected growth of the area that the points dominate, for each candidate.

    Args:
        points: (n, 2): accuracies and costs known.
        means: (m,) expected accuracies of the candidates.
        deviations: (m,) their standard deviations, positive.
        costs: (m,) costs of the candidates.
        worst: the accuracy and the cost beyond which nothing counts.
        at_the_end: weight of the accuracy at the greatest cost that counts, beside the area: with
            a limit, the one subnet that makes best use of it matters more than the rest of the
            front. In units of cost.

    Returns:
        (m,), 0 for candidates that cost more than the worst that counts.
    """
    worst_accuracy, worst_cost = worst
    counting = points[(points[:, 0] > worst_accuracy) & (points[:, 1] <= worst_cost)]
    front = counting[pareto_front(counting)]
    best = np.r_[worst_accuracy, front[:, 0]]  # what each further stretch of costs has already
    starts = np.r_[-np.inf, front[:, 1]]
    ends = np.r_[front[:, 1], worst_cost]
    widths = np.clip(ends - np.maximum(starts, costs[:, None]), 0.0, None)
    widths[:, -1] += at_the_end
    ahead = (means[:, None] - best) / deviations[:, None]
    density = np.exp(-0.5 * ahead**2) / np.sqrt(2 * np.pi)
    improvements = deviations[:, None] * (ahead * ndtr(ahead) + density)
    gains: Array = (widths * np.maximum(improvements, 0.0)).sum(axis=1)
    return np.where(costs <= worst_cost, gains, 0.0)
