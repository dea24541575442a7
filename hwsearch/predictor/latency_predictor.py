"""The latency predictor: fitted on measured subnets, it predicts the others of the same target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsearch.errors import PredictorError
from hwsearch.predictor import calibration
from hwsearch.predictor.crossvalidation import (
    CrossValidation,
    ModelChoice,
    choose_model,
    fold_numbers,
)
from hwsearch.predictor.error_sizes import sizes_of, sizes_without_own
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.predictor.information import relative_costs, spreads, studentised
from hwsearch.predictor.linear import Regressor
from hwsearch.predictor.models import LatencyModel, baselines, candidates, model_named
from hwsearch.predictor.transfer import SOURCE_MEAN, affine_transfer, transfer_candidates
from hwsearch.records import SamGeometry, Scope, SubnetConfig, Target

Array = NDArray[np.float64]

MIN_SAMPLES = 8
MIN_TRANSFER_SAMPLES = 5


class LatencyPredictor:
    """Predicts the latency of a supernet's subnets on one target, with conformal intervals.

    Attributes that end in `_` exist after `fit`:
        model_name_: the latency model that cross-validation chose.
        cv_: its cross-validated errors, beside those of the other models and the baselines.
        choice_: the model, its hyper-parameters and its out-of-fold errors.
        studentised_: those errors, (repeats, n), each in units of what the rows of the other folds
            leave uncertain, where the model is one of weights for costs, and of how large the other
            rows' are at its resolution.
        configs_: the distinct subnets that it was fitted on.
        latencies_ms_: their latencies in milliseconds, shape (n,).

    Args:
        geometry: the full encoder's sizes.
        target: where the latencies were measured.
        supernet_id: which supernet's subnets they are.
        scope: whether they are of encoder and decoder, or of one of them.
        seed: decides the folds of cross-validation.
        source: a fitted predictor of another target, to start from; then five subnets will do.
        noise_floor_percent: of the measurements that it is fitted on, where known; for its card.

    Raises:
        PredictorError: the source is not fitted, is of this very target, or predicts something
            else.
    """

    model_name_: str
    cv_: CrossValidation
    choice_: ModelChoice
    studentised_: Array
    configs_: tuple[SubnetConfig, ...]
    latencies_ms_: Array

    def __init__(
        self,
        geometry: SamGeometry,
        target: Target,
        supernet_id: str,
        *,
        scope: Scope = "full",
        seed: int = 0,
        source: LatencyPredictor | None = None,
        noise_floor_percent: float | None = None,
    ) -> None:
        if source is not None:
            _check_source(source, geometry=geometry, target=target, scope=scope)
        self.geometry = geometry
        self.target = target
        self.supernet_id = supernet_id
        self.scope: Scope = scope
        self.seed = seed
        self.source = source
        self.noise_floor_percent = noise_floor_percent

    @property
    def min_samples(self) -> int:
        """How many distinct subnets a fit needs."""
        return MIN_SAMPLES if self.source is None else MIN_TRANSFER_SAMPLES

    def fit(self, configs: Sequence[SubnetConfig], latencies_ms: ArrayLike) -> LatencyPredictor:
        """Choose a model by cross-validation and fit it on all rows; takes a few seconds.

        A subnet that comes more than once counts once, with the median of its latencies, so that
        no fold is tested on a subnet that it was fitted on.

        Args:
            configs: the measured subnets, at least `min_samples` distinct ones.
            latencies_ms: (n,) their latencies in milliseconds.

        Raises:
            PredictorError: too few subnets, a latency that is not positive and finite, or the
                source was fitted on the same measurements.
            UsageError: a configuration can't be a subnet of this geometry.
        """
        distinct, latencies = self._distinct(configs, latencies_ms)
        if self.source is not None:
            _check_independence(self.source, dict(zip(distinct, latencies.tolist(), strict=True)))
        choice = choose_model(
            self._features(distinct),
            latencies,
            models=self._models(len(distinct)),
            baselines=baselines(SCHEMA),
            seed=self.seed,
        )
        return self.refit(distinct, latencies, choice)

    def refit(
        self, configs: Sequence[SubnetConfig], latencies_ms: ArrayLike, choice: ModelChoice
    ) -> LatencyPredictor:
        """Fit the model of an earlier choice, without choosing again; takes milliseconds.

        Raises:
            PredictorError: as `fit`; or the choice names a model that this version lacks, or
                belongs to another number of rows.
            UsageError: a configuration can't be a subnet of this geometry.
        """
        distinct, latencies = self._distinct(configs, latencies_ms)
        repeats = len(choice.log_residuals)
        if not repeats or any(len(row) != len(distinct) for row in choice.log_residuals):
            raise PredictorError(
                f"The stored errors are not those of the {len(distinct)} stored subnets: fit the "
                "latency predictor again."
            )
        model = model_named(choice.model_name, self._models(len(distinct)))
        features = self._features(distinct)
        self._regressor: Regressor = model.fit(features, latencies, choice.hyper)
        self.model_name_ = choice.model_name
        self.cv_ = choice.cv
        self.choice_ = choice
        errors = np.array(choice.log_residuals)
        self._fitted_features = features if self._weighs_costs else None
        if self._fitted_features is not None:
            rows = relative_costs(features, features)
            folds = fold_numbers(len(rows), seed=self.seed, repeats=repeats)
            errors = studentised(errors, rows, folds)
        self._errors_by_resolution = errors, _resolutions(features)
        self.studentised_ = errors / sizes_without_own(*self._errors_by_resolution)
        self.configs_ = distinct
        self.latencies_ms_ = latencies
        return self

    def predict(self, configs: Sequence[SubnetConfig]) -> Array:
        """Latencies in milliseconds, shape (n,), positive and finite.

        Raises:
            PredictorError: the predictor is not fitted.
            UsageError: a configuration can't be a subnet of this geometry.
        """
        self._check_fitted()
        if not configs:
            return np.empty(0)
        return self._regressor.predict(self._features(configs))

    def interval(
        self, configs: Sequence[SubnetConfig], coverage: float = 0.9
    ) -> tuple[Array, Array]:
        """Bounds in milliseconds, each (n,), that hold a share `coverage` of measured latencies.

        The less the fitted rows tell of a subnet, and the more the model erred at its resolution
        out of fold, the wider they are.

        Raises:
            PredictorError: the predictor is not fitted.
            UsageError: `coverage` is not between 0 and 1, or a configuration is no subnet.
        """
        self._check_fitted()
        bound = calibration.two_sided(self.studentised_, coverage)
        predictions, factors = self._with_factors(configs, bound)
        return predictions / factors, predictions * factors

    def upper(self, configs: Sequence[SubnetConfig], coverage: float = 0.9) -> Array:
        """Bounds in milliseconds, (n,), that a share `coverage` of measured latencies stays below.

        A search holds this against its target latency. Never below the prediction.

        Raises:
            PredictorError: the predictor is not fitted.
            UsageError: `coverage` is not between 0 and 1, or a configuration is no subnet.
        """
        self._check_fitted()
        bound = calibration.one_sided(self.studentised_, coverage)
        predictions, factors = self._with_factors(configs, bound)
        return predictions * factors

    def correct(self, configs: Sequence[SubnetConfig], latencies_ms: ArrayLike) -> LatencyPredictor:
        """A new predictor, fitted on the rows of this one and on further measurements.

        Each row of this one counts as one measurement, though it may be the median of several.

        Raises:
            PredictorError: the predictor is not fitted, or a latency is not positive and finite.
            UsageError: a configuration can't be a subnet of this geometry.
        """
        self._check_fitted()
        added = _checked_latencies(configs, latencies_ms)
        new = LatencyPredictor(
            self.geometry,
            self.target,
            self.supernet_id,
            scope=self.scope,
            seed=self.seed,
            source=self.source,
            noise_floor_percent=self.noise_floor_percent,
        )
        return new.fit([*self.configs_, *configs], np.concatenate([self.latencies_ms_, added]))

    def check_target(self, target: Target) -> None:
        """Do nothing if `target` is the one that the latencies were measured on.

        Raises:
            PredictorError: it is another; the message names what differs.
        """
        if target.fingerprint == self.target.fingerprint:
            return
        mine, asked = self.target.model_dump(), target.model_dump()
        differences = ", ".join(
            f"{field} {mine[field]} is now {asked[field]}"
            for field in mine
            if mine[field] != asked[field]
        )
        raise PredictorError(
            f"The latency predictor was fitted on another target: {differences}. Profile and fit "
            "again, or allow a stale predictor (--allow-stale)."
        )

    def out_of_fold_ms(self) -> Array:
        """Each fitted row as predicted by models that did not see it, in milliseconds, (n,).

        Raises:
            PredictorError: the predictor is not fitted.
        """
        self._check_fitted()
        predictions: Array = self.latencies_ms_ * np.exp(
            -np.median(self.choice_.log_residuals, axis=0)
        )
        return predictions

    @property
    def _weighs_costs(self) -> bool:
        """Whether it learnt a weight for each cost; what corrects a source learns few numbers."""
        return self.model_name_ in {SOURCE_MEAN, *(model.name for model in candidates(SCHEMA))}

    def _with_factors(
        self, configs: Sequence[SubnetConfig], bound: calibration.ErrorBound
    ) -> tuple[Array, Array]:
        """Predictions in milliseconds, and the factors that they may be off by."""
        if not configs:
            return np.empty(0), np.empty(0)
        features = self._features(configs)
        predictions, fitted = self._regressor.predict(features), self._fitted_features
        units = sizes_of(*self._errors_by_resolution, _resolutions(features))
        if fitted is not None:
            measured, new = (relative_costs(rows, fitted) for rows in (fitted, features))
            units = units * spreads(measured, new)
        factors: Array = np.exp(bound.size * units)
        return predictions, factors

    def _models(self, samples: int) -> tuple[LatencyModel, ...]:
        if self.source is None:
            return candidates(SCHEMA)
        return transfer_candidates(SCHEMA) if samples >= MIN_SAMPLES else (affine_transfer(SCHEMA),)

    def _features(self, configs: Sequence[SubnetConfig]) -> Array:
        """The configurations' features, (n, f); with a source, its prediction as a last column."""
        return self._with_source(FeatureBuilder(self.geometry).matrix(configs))

    def _with_source(self, features: Array) -> Array:
        if self.source is None:
            return features
        predicted = self.source._regressor.predict(self.source._with_source(features))
        return np.column_stack([features, predicted])

    def _distinct(
        self, configs: Sequence[SubnetConfig], latencies_ms: ArrayLike
    ) -> tuple[tuple[SubnetConfig, ...], Array]:
        """Each subnet once, in the order of appearance, with the median of its latencies."""
        latencies = _checked_latencies(configs, latencies_ms)
        found: dict[SubnetConfig, list[float]] = {}
        for config, latency in zip(configs, latencies.tolist(), strict=True):
            found.setdefault(config, []).append(latency)
        if len(found) < self.min_samples:
            few = self.source is None and len(found) >= MIN_TRANSFER_SAMPLES
            raise PredictorError(
                f"A latency predictor can't be fitted on {len(found)} distinct subnets: profile "
                f"at least {self.min_samples}"
                + (", or start from another target's predictor." if few else ".")
            )
        return tuple(found), np.array([np.median(values) for values in found.values()])

    def _check_fitted(self) -> None:
        if not hasattr(self, "choice_"):
            raise PredictorError(
                "The latency predictor is not fitted: call fit(configs, latencies_ms) first."
            )


def _resolutions(features: Array) -> NDArray[np.int64]:
    """Of the rows that features are of: a hundred thousand configurations are slow to ask again."""
    (place,) = SCHEMA.places(["resolution"])
    return features[:, place].astype(np.int64)


def _check_source(
    source: LatencyPredictor, *, geometry: SamGeometry, target: Target, scope: Scope
) -> None:
    source._check_fitted()
    if source.geometry != geometry:
        raise PredictorError(
            f"A predictor of {source.geometry.id} can't be transferred to {geometry.id}: take one "
            "of the same geometry."
        )
    if source.scope != scope:
        raise PredictorError(
            f"A predictor of the scope {source.scope} can't be transferred to {scope}: take one of "
            "the same scope."
        )
    if any(start.target.fingerprint == target.fingerprint for start in _chain(source)):
        raise _own_source(source.target)


def _check_independence(source: LatencyPredictor, latencies_ms: dict[SubnetConfig, float]) -> None:
    """A source that saw the rows would predict the rows that cross-validation holds out.

    Its target may have another name, where a profile was copied.
    """
    for start in _chain(source):
        known = zip(start.configs_, start.latencies_ms_.tolist(), strict=True)
        if any(latencies_ms.get(config) == latency for config, latency in known):
            raise _own_source(source.target)


def _chain(source: LatencyPredictor) -> Iterator[LatencyPredictor]:
    """A source, and those that it was itself transferred from."""
    start: LatencyPredictor | None = source
    while start is not None:
        yield start
        start = start.source


def _own_source(target: Target) -> PredictorError:
    return PredictorError(
        f"The predictor of {target.name} to start from was itself fitted on measurements of this "
        "target: take another target's, or none."
    )


def _checked_latencies(configs: Sequence[SubnetConfig], latencies_ms: ArrayLike) -> Array:
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    if latencies.shape != (len(configs),):
        raise PredictorError(
            f"Latencies of shape {latencies.shape} don't belong to {len(configs)} subnets: give "
            "one number a subnet."
        )
    wrong = ~(np.isfinite(latencies) & (latencies > 0))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise PredictorError(
            f"A latency of {latencies[place]} ms (subnet {configs[place].id}) can't be used: "
            "latencies have to be positive and finite."
        )
    return latencies
