"""The latency models that a fit chooses from, and the baselines that it is held against.

Latency of a feed-forward network is close to a sum over its operators, so the models work on
summed costs, and all of them weigh errors relatively. Which columns are costs tells a
`FeatureSchema`: the models know no subnets. Each model separates choosing hyper-parameters
(`tune`) from fitting with given ones (`fit`): a stored latency predictor is refitted from its rows
without choosing again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hwsearch.errors import PredictorError
from hwsearch.predictor.linear import Array, BlockSum, CostRidge, Hyper, Regressor
from hwsearch.predictor.residual import BoostedOn, ProcessOn
from hwsearch.predictor.schema import FeatureSchema

CONSTANT = "constant"
# Fewer rows than this leave most of a table's entries to chance.
TABLE_MIN_SAMPLES = 32


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


def candidates(schema: FeatureSchema) -> tuple[LatencyModel, ...]:
    """What a fit chooses from.

    The simplest first: of models that cross-validation can't tell apart, the first is taken.
    Sums over operators, whichever kind of block they stand in, have eight columns less than sums
    over each kind's. On three targets of the reference machine, two CPU runtimes and int8, that
    took the error at 32 subnets from 1.39, 1.85 and 2.21 % to 1.27, 1.75 and 2.03 %, and at 16
    from 2.3, 2.3 and 3.3 % to 1.9, 2.0 and 2.6 %.
    """
    costs, shape = schema.places(schema.costs), schema.places(schema.shape)
    operators = schema.places(schema.operators) or costs
    operator_sum = BlockSum("operator_sum", operators)
    block_sum = BlockSum("block_sum", costs)
    table = BlockSum("block_table", (*costs, *schema.places(schema.table)), TABLE_MIN_SAMPLES)
    return (
        operator_sum,
        CostRidge("operator_ridge", operators),
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
