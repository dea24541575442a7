import numpy as np
import pytest
from laboratory import Lab, Law

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import at_best
from hwsearch.search.steps import informed_steps, steps_around
from hwsearch.search.stretch import MOST, challengers

LIMIT_MS = 15.0


@pytest.fixture
def judged(lab: Lab, law: Law, deployments: list[Deployment]) -> dict[Deployment, float]:
    """What a search has judged that took bounds a tenth above all predictions for granted."""
    lab.upper = lambda chosen: 1.1 * lab.predict(chosen)
    rng = np.random.default_rng(0)
    within = [one for one in deployments if lab.upper([one])[0, 0] <= LIMIT_MS]
    drawn = [within[place] for place in rng.permutation(len(within))[:60]]
    return {one: law[0](one) for one in {*drawn, max(within, key=law[0])}}


def challengers_of_the_best(
    space: DeploymentSpace, lab: Lab, judged: dict[Deployment, float]
) -> list[Deployment]:
    return challengers(
        space,
        judged,
        max(judged, key=judged.__getitem__),
        upper=lab.upper_cost,
        at_best=lambda some: at_best(lab.objectives, some, [[1.0]])[:, 0],
        limit=LIMIT_MS,
    )


def test_what_the_upper_bound_hid_is_found(
    space: DeploymentSpace,
    lab: Lab,
    law: Law,
    deployments: list[Deployment],
    judged: dict[Deployment, float],
):
    found = challengers_of_the_best(space, lab, judged)
    assert 0 < len(found) <= MOST
    assert not set(found) & set(judged)
    assert any(law[1](one) <= LIMIT_MS and law[0](one) > max(judged.values()) for one in found)
    assert all(law[1](one) <= 1.06 * LIMIT_MS for one in found)


def test_a_step_that_fits_is_found_behind_one_that_does_not(
    space: DeploymentSpace, lab: Lab, law: Law, deployments: list[Deployment]
):
    within = [one for one in deployments if lab.predict([one])[0, 0] <= LIMIT_MS]
    best = max(law[0](one) for one in within)
    steps = {one: {*space.neighbours(one), *informed_steps(space, one)} for one in within}
    stuck = [
        one
        for one in within
        if law[0](one) < best
        and all(law[0](step) < law[0](one) for step in steps[one] if step in steps)
    ]
    for pick in stuck:
        no_better = {one: law[0](one) for one in within if law[0](one) <= law[0](pick)}
        found = challengers_of_the_best(space, lab, no_better)
        assert any(law[0](one) > law[0](pick) and one not in steps[pick] for one in found)
    assert stuck


def test_a_step_from_a_more_accurate_one_that_is_too_slow_is_found(
    space: DeploymentSpace, lab: Lab, law: Law, deployments: list[Deployment]
):
    """Nothing else fits, and the best is out of reach of the pick."""
    within = [one for one in deployments if lab.predict([one])[0, 0] <= LIMIT_MS]
    best = max(within, key=law[0])
    larger = next(
        one for one in deployments if law[1](one) > LIMIT_MS and best in steps_around(space, one)
    )
    others = [one for one in within if best not in _two_steps(space, one)]
    judged = {one: law[0](one) for one in [*others, larger]}
    found = challengers(
        space,
        judged,
        max(others, key=law[0]),
        upper=lab.upper_cost,
        at_best=lambda some: np.array([LIMIT_MS if one == best else np.inf for one in some]),
        limit=LIMIT_MS,
    )
    assert law[0](larger) > law[0](best)
    assert found == [best]


def _two_steps(space: DeploymentSpace, one: Deployment) -> set[Deployment]:
    near = {one, *steps_around(space, one)}
    return near | {step for other in near for step in steps_around(space, other)}


def test_a_doubtful_one_is_judged_until_it_is_known_better(
    space: DeploymentSpace, lab: Lab, deployments: list[Deployment], law: Law
):
    """A surrogate of few and noisy accuracies is not believed where it expects a little less."""
    rng = np.random.default_rng(1)
    within = [one for one in deployments if law[1](one) <= LIMIT_MS]
    drawn = [within[place] for place in rng.permutation(len(within))[:20]]
    noisy = {one: law[0](one) + rng.normal(0.0, 0.02) for one in drawn}
    pick = max(noisy, key=noisy.__getitem__)
    lucky = noisy | {pick: noisy[pick] + 0.03}
    assert challengers_of_the_best(space, lab, lucky)


def test_nothing_is_left_where_all_that_fits_was_judged(
    space: DeploymentSpace, lab: Lab, law: Law, deployments: list[Deployment]
):
    assert challengers_of_the_best(space, lab, {one: law[0](one) for one in deployments}) == []


def test_what_can_only_be_worse_is_not_judged(
    space: DeploymentSpace, lab: Lab, law: Law, judged: dict[Deployment, float]
):
    lab.upper = lambda chosen: 1.0001 * lab.predict(chosen)
    best = max(judged, key=judged.__getitem__)
    everything_else_below = judged | {best: 1.0}
    assert challengers_of_the_best(space, lab, everything_else_below) == []


def test_a_tenth_of_the_latencies_lies_below_the_hoped_for_one(lab: Lab, space: DeploymentSpace):
    """By a simulation: errors are normal in the logarithm, bounds hold nine times in ten."""
    spread = np.log(lab.upper([space.largest])[0, 0] / lab.predict([space.largest])[0, 0]) / 1.2816
    hoped = at_best(lab.objectives, [space.largest], [[1.0]])[0, 0]
    errors = np.random.default_rng(0).normal(0.0, spread, 100_000)
    latencies = lab.predict([space.largest])[0, 0] * np.exp(errors)
    assert np.mean(latencies < hoped) == pytest.approx(0.1, abs=0.005)
