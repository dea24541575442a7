"""Optuna's sampler of this project: deployments that are proposed by `propose`.

It makes a search an ordinary Optuna study: whoever has the storage can open it, look at it with
Optuna's own tools, and go on with `study.optimize(objective)`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.encoding import encode, parameter_sizes
from hwsearch.search.moves import shrink_to
from hwsearch.search.objectives import Cost
from hwsearch.search.propose import propose
from hwsearch.search.start import informed_start
from hwsearch.search.trials import PENDING, deployment_of, is_given_up

START = "start"
DRAWS = 64  # at most, for something untried where nothing is proposed
PATIENCE_S = 20.0  # for a worker that is about to choose
POLL_S = 0.05
ONE_AT_A_TIME = threading.Lock()  # of the threads that share a study, with Optuna's `n_jobs`


class SubnetSampler(BaseSampler):
    """Proposes deployments: first those of an informed start, then what promises most.

    The first value of a trial has to be its mIoU. What another trial judged, or is judging, is not
    proposed again. A choice hangs on the seed, on the trial's number (not counting those that
    failed before it) and on the trials so far, and on nothing else: a study that was interrupted
    goes on as if it had not been.

    Args:
        space: where the deployments come from.
        upper: upper bounds of their costs, (n,). Without a limit they stand for the costs
            themselves: what little is known of counts as a little larger.
        limit: the cost that they may not exceed, or None.
        seed: seeds every choice, together with the trial's number.
    """

    def __init__(
        self, space: DeploymentSpace, *, upper: Cost, limit: float | None, seed: int
    ) -> None:
        self._space = space
        self._upper = upper
        self._limit = limit
        self._seed = seed
        self._foreign = RandomSampler(seed=seed)
        self._silent: set[int] = set()  # trials that were waited for long enough

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters of the space."""
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of the next deployment."""
        others = self._trials_before(study, trial)
        known = [(deployment_of(self._space, other), other) for other in others]
        chosen = [(deployment, other) for deployment, other in known if deployment is not None]
        judged = {
            deployment: other.values[0]
            for deployment, other in chosen
            if other.state == TrialState.COMPLETE
        }
        tried = {
            deployment
            for deployment, other in chosen
            if other.state != TrialState.FAIL or is_given_up(other)
        }
        for deployment in self._agreed_start(study):
            if deployment not in tried:
                return dict(encode(self._space, deployment))
        unjudged = [
            deployment
            for deployment, other in chosen
            if deployment not in judged and (other.state in PENDING or is_given_up(other))
        ]
        failed = sum(t.state == TrialState.FAIL and t.number < trial.number for t in others)
        rng = np.random.default_rng([self._seed, trial.number - failed])
        # Matrices of tens of rows: more threads only wait. The limit is the whole process's.
        with ONE_AT_A_TIME, threadpool_limits(1, user_api="blas"):
            proposed = propose(
                self._space,
                judged,
                upper=self._upper,
                limit=self._limit,
                pending=list(dict.fromkeys(unjudged)),
                rng=rng,
            )
        if proposed is None or proposed in tried:
            proposed = self._draw_untried(tried, rng)
        return dict(encode(self._space, proposed))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - Optuna's own signature
        """A random value for a parameter that is not one of the space."""
        return self._foreign.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Nothing: threads that share a study differ by the numbers of their trials."""

    def _trials_before(self, study: Study, trial: FrozenTrial) -> Sequence[FrozenTrial]:
        """All other trials, once those that began earlier have chosen.

        Else two workers that choose at the same time would not know of each other.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
            undecided = {
                other.number
                for other in others
                if other.state == TrialState.RUNNING
                and other.number < trial.number
                and deployment_of(self._space, other) is None
            }
            if undecided <= self._silent:
                return others
            if time.monotonic() > deadline:
                self._silent |= undecided
                return others
            time.sleep(POLL_S)

    def _agreed_start(self, study: Study) -> list[Deployment]:
        """The start that the first process chose: predictors may differ by the next one."""
        stored: list[str] | None = study.user_attrs.get(START)
        if stored is not None:
            return [Deployment.from_json(text) for text in stored]
        start = informed_start(self._space, self._upper, self._limit)
        study.set_user_attr(START, [deployment.to_json() for deployment in start])
        return start

    def _draw_untried(self, tried: set[Deployment], rng: np.random.Generator) -> Deployment:
        """A random deployment within the limit, one not tried before if it can be found."""
        drawn = self._space.smallest
        for _ in range(DRAWS):
            sample = self._space.sample(rng)
            if self._limit is None:
                drawn = sample
            else:
                fitting = shrink_to(
                    self._space, sample, cost=self._upper, limit=self._limit, rng=rng
                )
                drawn = fitting or drawn
            if drawn not in tried:
                break
        return drawn


def distributions(space: DeploymentSpace) -> dict[str, BaseDistribution]:
    """Parameter name → where its values lie."""
    return {name: IntDistribution(0, size - 1) for name, size in parameter_sizes(space).items()}
