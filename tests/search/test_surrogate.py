import numpy as np
import pytest
from laboratory import Lab, Law

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.surrogate import features, fit_surrogate


@pytest.fixture
def split(space: DeploymentSpace, lab: Lab, law: Law, deployments: list[Deployment]):
    """Features and accuracies of 50 deployments, and of all others."""
    miou, _ = law
    order = np.random.default_rng(1).permutation(len(deployments))
    inputs = features(space, deployments, lab.upper_cost(deployments))
    accuracies = np.array([miou(one) for one in deployments])
    return (inputs[order[:50]], accuracies[order[:50]]), (
        inputs[order[50:]],
        accuracies[order[50:]],
    )


def test_it_learns_which_layer_matters(split: tuple):
    (inputs, accuracies), (unseen, truth) = split
    means, _ = fit_surrogate(inputs, accuracies).predict(unseen)
    assert np.corrcoef(means, truth)[0, 1] > 0.98
    assert np.abs(means - truth).mean() < 0.2 * truth.std()


@pytest.mark.parametrize("noise", [0.005, 0.03])
def test_it_knows_how_wrong_it_is(split: tuple, noise: float):
    (inputs, accuracies), (unseen, truth) = split
    rng = np.random.default_rng(2)
    noisy = accuracies + noise * rng.standard_normal(len(accuracies))
    means, deviations = fit_surrogate(inputs, noisy).predict(unseen)
    off = (truth + noise * rng.standard_normal(len(truth)) - means) / deviations
    assert 0.75 < off.std() < 1.35


def test_it_is_less_sure_of_what_is_unlike_anything_judged(
    space: DeploymentSpace, lab: Lab, law: Law, deployments: list[Deployment]
):
    miou, _ = law
    judged = [one for one in deployments if one.subnet.resolution < 64][::9]
    like = [one for one in deployments if one.subnet.resolution < 64][1::9]
    unlike = [one for one in deployments if one.subnet.resolution == 64][1::9]
    table = {
        name: features(space, some, lab.upper_cost(some))
        for name, some in (("judged", judged), ("like", like), ("unlike", unlike))
    }
    fitted = fit_surrogate(table["judged"], np.array([miou(one) for one in judged]))
    _, near = fitted.predict(table["like"])
    _, far = fitted.predict(table["unlike"])
    assert np.median(far) > 1.5 * np.median(near)


@pytest.mark.parametrize("count", [1, 2])
def test_few_or_equal_accuracies_are_no_trouble(split: tuple, count: int):
    (inputs, _), (unseen, _) = split
    means, deviations = fit_surrogate(inputs[:count], np.full(count, 0.6)).predict(unseen)
    assert means == pytest.approx(np.full(len(unseen), 0.6))
    assert np.isfinite(deviations).all()
    assert (deviations > 0).all()
