import numpy as np
import pytest
from laboratory import Lab, Law

from hwsearch.records import Deployment
from hwsearch.search import propose as proposing
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.pareto import hypervolume, pareto_front
from hwsearch.search.propose import propose
from hwsearch.search.start import informed_start
from hwsearch.search.steps import informed_steps


def searched(
    space: DeploymentSpace, lab: Lab, law: Law, *, limit: float | None, trials: int, seed: int = 0
) -> dict[Deployment, float]:
    """What is judged by a start of six and proposals after it."""
    miou, _ = law
    start = informed_start(space, lab.upper_cost, limit, count=6)
    judged = {config: miou(config) for config in start}
    while len(judged) < trials:
        rng = np.random.default_rng([seed, len(judged)])
        chosen = propose(space, judged, upper=lab.upper_cost, limit=limit, rng=rng)
        assert chosen is not None
        assert chosen not in judged
        assert limit is None or lab.upper_cost([chosen])[0] <= limit
        judged[chosen] = miou(chosen)
    return judged


@pytest.mark.parametrize("limit", [9.0, 12.0, 18.0])
def test_the_best_within_a_limit_is_found_among_few(
    space: DeploymentSpace, lab: Lab, law: Law, deployments: list[Deployment], limit: float
):
    miou, _ = law
    best = max(miou(one) for one in deployments if lab.upper_cost([one])[0] <= limit)
    assert len(deployments) > 500
    for seed in range(3):
        judged = searched(space, lab, law, limit=limit, trials=24, seed=seed)
        found = max(v for one, v in judged.items() if lab.upper_cost([one])[0] <= limit)
        assert found >= best - 0.002


def test_the_whole_front_is_found_among_few(
    space: DeploymentSpace, lab: Lab, law: Law, deployments: list[Deployment]
):
    miou, _ = law

    def area(some: list[Deployment]) -> float:
        points = [(miou(one), lab.upper_cost([one])[0]) for one in some]
        worst = min(map(miou, deployments)), lab.upper_cost([space.largest])[0]
        return hypervolume(points, worst)

    whole = area(deployments)
    for seed in range(3):
        judged = searched(space, lab, law, limit=None, trials=32, seed=seed)
        assert area(list(judged)) >= 0.98 * whole


def test_the_same_draws_give_the_same_proposal(space: DeploymentSpace, lab: Lab, law: Law):
    miou, _ = law
    judged = {one: miou(one) for one in informed_start(space, lab.upper_cost, 12.0)}
    one, same, other = (
        propose(space, judged, upper=lab.upper_cost, limit=12.0, rng=np.random.default_rng(seed))
        for seed in (3, 3, 4)
    )
    assert one == same
    assert other is not None


def test_what_others_judge_now_is_not_proposed(space: DeploymentSpace, lab: Lab, law: Law):
    miou, _ = law
    judged = {one: miou(one) for one in informed_start(space, lab.upper_cost, 12.0)}
    pending: list[Deployment] = []
    for _ in range(8):
        chosen = propose(
            space,
            judged,
            upper=lab.upper_cost,
            limit=12.0,
            pending=pending,
            rng=np.random.default_rng(0),
        )
        assert chosen is not None
        assert chosen not in pending
        pending.append(chosen)


def test_only_the_smallest_is_left_where_nothing_else_fits(
    space: DeploymentSpace, lab: Lab, law: Law
):
    miou, _ = law
    judged = {space.largest: miou(space.largest)}
    lowest = lab.upper_cost([space.smallest])[0]

    def proposed(limit: float) -> Deployment | None:
        rng = np.random.default_rng(0)
        return propose(space, judged, upper=lab.upper_cost, limit=limit, rng=rng)

    assert proposed(lowest) == space.smallest
    assert proposed(0.99 * lowest) is None
    assert propose(space, {}, upper=lab.upper_cost, rng=np.random.default_rng(0)) is None


def test_in_doubt_a_step_is_tried_that_the_surrogate_expects_to_lose(
    space: DeploymentSpace, lab: Lab, law: Law, monkeypatch: pytest.MonkeyPatch
):
    miou, _ = law
    judged = searched(space, lab, law, limit=None, trials=20)
    points = [(miou(one), lab.cost([one])[0]) for one in judged]
    front = [list(judged)[place] for place in pareto_front(points)]

    def proposed(doubt: float, limit: float | None = None) -> set[Deployment | None]:
        monkeypatch.setattr(proposing, "DOUBT", doubt)
        draws = (np.random.default_rng(seed) for seed in range(6))
        return {propose(space, judged, upper=lab.upper_cost, limit=limit, rng=rng) for rng in draws}

    (daring,) = proposed(1.0)  # no draw decides which step it is
    assert daring is not None
    assert daring not in judged
    parents = [o for o in front if daring in (*space.neighbours(o), *informed_steps(space, o))]
    assert any(lab.cost([daring])[0] < lab.cost([parent])[0] for parent in parents)
    assert daring not in proposed(0.0)
    assert proposed(1.0, limit=18.0) == proposed(0.0, limit=18.0), "no doubts within a limit"


def test_doubts_come_now_and_then(
    space: DeploymentSpace, lab: Lab, law: Law, monkeypatch: pytest.MonkeyPatch
):
    judged = searched(space, lab, law, limit=None, trials=20)

    def proposed(seed: int) -> Deployment | None:
        rng = np.random.default_rng(seed)
        return propose(space, judged, upper=lab.upper_cost, rng=rng)

    usual = [proposed(seed) for seed in range(24)]
    monkeypatch.setattr(proposing, "DOUBT", 1.0)
    doubting = proposed(0)
    assert 2 <= usual.count(doubting) <= 16
