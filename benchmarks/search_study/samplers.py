"""The samplers that are compared: the project's own, Optuna's and pymoo's, on the same parameters.

Each gives the members that it would have judged, in order and each once. A member that it proposes
again costs it nothing, since any of them could be given a memory of what it tried.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import optuna
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.encoding import decode, encode, parameter_sizes
from hwsearch.search.start import informed_start
from search_study.default import default_sampler
from search_study.table import SearchTable

Propose = Callable[[SearchTable, int, float | None], Iterator[int]]
Make = Callable[[SearchTable, int, float | None], optuna.samplers.BaseSampler]

DEFAULT = "default"  # the project's own

PATIENCE = 40  # so many proposals in a row that were known already end a sampler's run
NSGA_POPULATIONS = (10, 20, 50)


def optuna_rows(
    make: Make,
    table: SearchTable,
    seed: int,
    limit_ms: float | None,
    *,
    informed: bool = False,
) -> Iterator[int]:
    """Rows of the table that a sampler of Optuna asks for, repetitions included.

    With `informed` it begins with the members that the project's own sampler begins with.
    """
    space = DeploymentSpace(subnets=table.restricted.space)
    sizes = parameter_sizes(space)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=make(table, seed, limit_ms)
        )
        if informed:

            def cost(deployments: Sequence[Deployment]) -> NDArray[np.float64]:
                rows = [table.rows[deployment.subnet] for deployment in deployments]
                return table.points[rows, 1]

            for member in informed_start(space, cost, limit_ms):
                study.enqueue_trial(encode(space, member))
        while True:
            trial = study.ask()
            values = {name: trial.suggest_int(name, 0, size - 1) for name, size in sizes.items()}
            row = table.rows[decode(space, values).subnet]
            yield row
            if limit_ms is not None:
                trial.set_constraint("latency_over_limit_ms", table.latencies_ms[row] - limit_ms)
            study.tell(trial, (table.mious[row], table.latencies_ms[row]))


class DrawnAnew(Mutation):  # type: ignore[misc]  # pymoo has no types
    """Draws each of n parameters anew with probability 1 / n.

    Polynomial mutation, pymoo's own, hardly ever moves an integer with few values.
    """

    def _do(
        self,
        problem: Problem,
        X: NDArray[np.int64],  # noqa: N803 - pymoo's own signature
        *_: object,
        random_state: np.random.Generator,
        **__: object,
    ) -> NDArray[np.int64]:
        drawn = random_state.integers(problem.xl, problem.xu + 1, size=X.shape)
        return np.where(random_state.random(X.shape) < 1 / problem.n_var, drawn, X)


def pymoo_rows(
    population: int, table: SearchTable, seed: int, limit_ms: float | None
) -> Iterator[int]:
    """Rows that pymoo's NSGA-II asks for, with its operators for integers."""
    space = DeploymentSpace(subnets=table.restricted.space)
    sizes = parameter_sizes(space)
    problem = Problem(
        n_var=len(sizes),
        n_obj=2,
        n_ieq_constr=0 if limit_ms is None else 1,
        xl=np.zeros(len(sizes), dtype=int),
        xu=np.array([*sizes.values()]) - 1,
        vtype=int,
    )
    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=DrawnAnew(),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, termination=("n_gen", 10**9), seed=seed)
    while algorithm.has_next():
        asked = algorithm.ask()
        if asked is None or not len(asked):  # nothing new came of a hundred matings
            return
        tables: NDArray[np.int64] = np.asarray(asked.get("X"), dtype=np.int64)
        rows = [
            table.rows[decode(space, dict(zip(sizes, line.tolist(), strict=True))).subnet]
            for line in tables
        ]
        yield from rows
        points = table.points[rows]
        asked.set("F", np.column_stack([-points[:, 0], points[:, 1]]))
        if limit_ms is not None:
            asked.set("G", points[:, 1:] - limit_ms)
        algorithm.tell(infills=asked)


def all_samplers() -> dict[str, Propose]:
    """Name → rows that a sampler asks for, by table, seed and limit; the project's own first."""
    made: dict[str, Make] = {
        DEFAULT: default_sampler,
        "random": lambda _table, seed, _limit_ms: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda _table, seed, _limit_ms: optuna.samplers.TPESampler(
            seed=seed, multivariate=True
        ),
        "gp": lambda _table, seed, _limit_ms: optuna.samplers.GPSampler(
            seed=seed, deterministic_objective=True
        ),
    }
    for size in NSGA_POPULATIONS:
        made[f"nsga2, population {size}"] = partial(_nsga2, size)
    made["nsga3, population 20"] = partial(_nsga3, 20)
    rows: dict[str, Propose] = {name: partial(optuna_rows, make) for name, make in made.items()}
    rows["nsga2, population 20, informed start"] = partial(
        optuna_rows, partial(_nsga2, 20), informed=True
    )
    for size in NSGA_POPULATIONS:
        rows[f"pymoo nsga2, population {size}"] = partial(pymoo_rows, size)
    return rows


def _nsga2(
    population: int, _table: SearchTable, seed: int, _limit_ms: float | None
) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)


def _nsga3(
    population: int, _table: SearchTable, seed: int, _limit_ms: float | None
) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIIISampler(seed=seed, population_size=population)


def distinct(rows: Iterator[int], most: int) -> list[int]:
    """The first `most` different rows, or fewer where a sampler has nothing new any more."""
    found: dict[int, None] = {}
    stale = 0
    for row in rows:
        stale = stale + 1 if row in found else 0
        found[row] = None
        if len(found) >= most or stale >= PATIENCE * max(1, len(found) // 20):
            break
    return list(found)
