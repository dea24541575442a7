import math

import pytest
from laboratory import laboratory_space

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.rounds import Round
from hwsearch.search.runnable import too_much

FAILED, RAN = math.inf, 1.0


def occasion(measured_ms: dict[Deployment, float]) -> Round:
    return Round(latencies_ms=tuple((one, (ms,)) for one, ms in measured_ms.items()))


@pytest.fixture
def middle(space: DeploymentSpace) -> Deployment:
    """At the middle resolution, with a step left in every direction."""
    return Deployment(subnet=space.subnets.between(0.5).model_copy(update={"resolution": 48}))


def test_where_everything_ran_nothing_is_too_much(space: DeploymentSpace, middle: Deployment):
    assert not too_much([occasion({middle: RAN})])(space.largest)
    assert not too_much([])(space.largest)


def test_only_what_has_all_of_a_failure_is_too_much(space: DeploymentSpace, middle: Deployment):
    beyond = too_much([occasion({middle: FAILED, space.smallest: RAN})])
    assert beyond(middle)
    assert beyond(space.largest)
    assert not beyond(space.smallest)
    larger = [one for one in space.neighbours(middle) if beyond(one)]
    smaller = [one for one in space.neighbours(middle) if not beyond(one)]
    assert all(one.subnet.resolution >= 48 for one in larger)
    assert {one.subnet.resolution for one in larger} == {48, 64}
    assert {one.subnet.resolution for one in smaller} == {32, 48}
    assert min(one.subnet.depth for one in larger) == middle.subnet.depth
    for field in ("mlp_width", "heads"):
        least = [
            getattr(ours, field) - getattr(theirs, field)
            for one in larger
            for ours, theirs in zip(one.subnet.layers, middle.subnet.layers, strict=False)
            if ours.index == theirs.index
        ]
        assert min(least) == 0


def test_a_failure_that_something_larger_did_not_share_says_nothing_of_others(
    space: DeploymentSpace, middle: Deployment
):
    assert not too_much([occasion({middle: FAILED, space.largest: RAN})])(middle)
    assert too_much([occasion({middle: FAILED, space.largest: FAILED})])(middle)


def test_what_ran_on_another_occasion_is_no_border(space: DeploymentSpace, middle: Deployment):
    """Something else may have filled the memory for a moment."""
    for occasions in ((RAN, FAILED), (FAILED, RAN)):
        beyond = too_much([occasion({middle: latency_ms}) for latency_ms in occasions])
        assert not beyond(space.largest)


def test_another_precision_is_another_matter():
    space = laboratory_space("fp32", "int8")
    beyond = too_much([occasion({space.largest: FAILED})])
    assert not beyond(Deployment(subnet=space.largest.subnet, precision="int8"))
    assert beyond(space.largest)
