"""The latency models that a fit chooses from, and the baselines that it is held against.

Latency of a feed-forward network is close to a sum over its operators, so the models work on
summed costs, and weigh errors about relatively. Which columns are costs tells a
`FeatureSchema`: the models know no subnets. Each model separates choosing hyper-parameters
(`tune`) from fitting with given ones (`fit`): a stored latency predictor is refitted from its rows
without choosing again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwsearch.errors import PredictorError
from hwsearch.predictor.linear import Array, BlockSum, CostRidge, Hyper, Regressor
from hwsearch.predictor.residual import BoostedOn, ProcessOn
from hwsearch.predictor.schema import FeatureSchema

CONSTANT = "constant"
# Fewer rows than this leave most of a table's entries to chance.
TABLE_MIN_SAMPLES = 32
# From so many rows on, cross-validation tells a sum from a ridge, and the better one is taken.
TELLING_SAMPLES = 64


class LatencyModel(Protocol):
    """A way from features to latencies."""

    @property
    def name(self) -> str:
        """The name in tables and stored predictors."""
        ...

    def suits(self, samples: int) -> bool:
        """Whether the model is worth trying on so many rows: not too few, not too slow."""
        ...

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Choose hyper-parameters on these rows."""
        ...

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """Fit with given hyper-parameters; the same rows give the same model."""
        ...


@dataclass(frozen=True)
class MeanOf:
    """The geometric mean of what several models predict.

    Where the errors of models differ, their mean errs less than most of them (Bates and Granger,
    Operational Research Quarterly 20, 1969), and needs no choice between them, which tens of
    samples leave to chance.
    """

    name: str
    parts: tuple[LatencyModel, ...]
    below: int = TELLING_SAMPLES

    def suits(self, samples: int) -> bool:
        """As long as rows are too few to choose one of the parts."""
        return samples < self.below and all(part.suits(samples) for part in self.parts)

    def tune(self, features: Array, latencies_ms: Array) -> dict[str, float]:
        """Each part's own choice, as `part.parameter`."""
        return {
            f"{part.name}.{name}": value
            for part in self.parts
            for name, value in part.tune(features, latencies_ms).items()
        }

    def fit(self, features: Array, latencies_ms: Array, hyper: Hyper) -> Regressor:
        """Each part with its own parameters."""
        fitted = []
        for part in self.parts:
            prefix = f"{part.name}."
            own = {
                name.removeprefix(prefix): value
                for name, value in hyper.items()
                if name.startswith(prefix)
            }
            fitted.append(part.fit(features, latencies_ms, own))
        return _Mean(tuple(fitted))


@dataclass(frozen=True)
class _Mean:
    parts: tuple[Regressor, ...]

    def predict(self, features: Array) -> Array:
        logarithms = [np.log(part.predict(features)) for part in self.parts]
        latencies: Array = np.exp(np.mean(logarithms, axis=0))
        return latencies


def candidates(schema: FeatureSchema) -> tuple[LatencyModel, ...]:
    """What a fit chooses from.

    Of models that cross-validation can't tell apart, the first is taken: the mean of a sum and a
    ridge over the same costs, then each of them, then what has more to learn. Which of these
    two is the better differs between targets, and 32 subnets don't tell: on the reference
    machine's OpenVINO the sum errs by 1.48, the ridge by 1.15 and their mean by 1.20 %, on its
    ONNX Runtime by 0.90, 0.95 and 0.90 % (24 draws).
    Sums over operators, whichever kind of block they stand in, have eight columns less than sums
    over each kind's. With that the error at 32 subnets of the reference machine is 0.92, 0.69
    and 1.51 %, on ONNX Runtime with one thread (fp32, int8) and OpenVINO, without it 1.00, 0.81
    and 1.60 %; at 16 it is 0.94, 0.81 and 1.73 %, without it 1.45, 0.97 and 2.00 % (sums, 5 draws).
    Sums also get what bends. At 128 px latency grows faster than the number of blocks, perhaps
    since the weights of many don't stay in the caches from one run to the next: without, subnets
    of 3 blocks came out .6 % slower than predicted on ONNX Runtime with one thread (fp32 and int8),
    of 5 and 6 blocks .5 to .9 % faster, of 12 blocks 1.1 to 1.5 % slower. With the blocks' number
    squared, the error of the mean of sum and ridge is 0 to 5 % smaller from 12 subnets on, and up
    to 4 % greater with 8. A ridge does not get it: with few subnets it would learn a wrong sign.
    """
    costs, shape = schema.places(schema.costs), schema.places(schema.shape)
    operators = schema.places(schema.operators) or costs
    bends = schema.places(schema.bends)
    operator_sum = BlockSum("operator_sum", (*operators, *bends))
    operator_ridge = CostRidge("operator_ridge", operators)
    block_sum = BlockSum("block_sum", (*costs, *bends))
    entries = (*costs, *schema.places(schema.table), *bends)
    table = BlockSum("block_table", entries, TABLE_MIN_SAMPLES)
    return (
        MeanOf("operator_mean", (operator_sum, operator_ridge)),
        operator_sum,
        operator_ridge,
        *((block_sum,) if schema.operators else ()),
        *((table,) if schema.table else ()),
        ProcessOn("operator_process", operator_sum, shape),
        BoostedOn("operator_trees", operator_sum, tuple(sorted({*costs, *shape}))),
    )


def baselines(schema: FeatureSchema) -> tuple[LatencyModel, ...]:
    """The best constant, and the best straight lines over one figure of the subnet."""
    return (
        BlockSum(CONSTANT, ()),
        *(BlockSum(name, schema.places([column])) for name, column in schema.sizes),
    )


def model_named(name: str, models: Sequence[LatencyModel]) -> LatencyModel:
    """The model of this name.

    Raises:
        PredictorError: there is none.
    """
    for model in models:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in models)
    raise PredictorError(f"There is no latency model '{name}': this version knows {known}.")
