"""Scores of thousands of neurons in a few figures that fit into `supernet.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hwsearch.records import LayerSpread, ScoreMethod, ScoreSpread
from hwsearch.space import SearchSpace
from hwsearch.supernet.scores import LayerScores

DIGITS = 4


def score_spreads(
    scores: Mapping[ScoreMethod, Sequence[LayerScores]], space: SearchSpace
) -> tuple[LayerSpread, ...]:
    """How each method's scores are spread over the neurons and heads of every layer.

    Args:
        scores: for each method one record a layer, in the present order of neurons and heads.
        space: its MLP widths, and half the full width, are where neurons are counted up to.
    """
    full = len(next(iter(scores.values()))[0].neurons)
    widths = {width for choices in space.layers for width in choices.mlp_widths}
    counts = tuple(sorted(widths | {full // 2, full}))
    return tuple(
        LayerSpread(
            index=index,
            mlp_widths=counts,
            methods={method: _spread(layers[index], counts) for method, layers in scores.items()},
        )
        for index in range(len(space.layers))
    )


def _spread(scores: LayerScores, counts: Sequence[int]) -> ScoreSpread:
    neurons = _shares(scores.neurons)
    return ScoreSpread(
        heads=_rounded(_shares(scores.heads)),
        first_neurons=_held(neurons, counts),
        best_neurons=_held(neurons.sort(descending=True).values, counts),
    )


def _shares(scores: Tensor) -> Tensor:
    """Each score as a share of their sum; even shares where all are zero."""
    scores = scores.detach().cpu().double()
    total = scores.sum()
    return scores / total if total > 0 else torch.full_like(scores, 1 / len(scores))


def _held(shares: Tensor, counts: Sequence[int]) -> tuple[float, ...]:
    return _rounded(shares.cumsum(dim=0)[torch.tensor(counts) - 1])


def _rounded(shares: Tensor) -> tuple[float, ...]:
    # Sums of shares may pass 1 by a rounding error.
    return tuple(round(min(share, 1.0), DIGITS) for share in shares.tolist())
