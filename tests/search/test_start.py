import numpy as np
import pytest
from laboratory import Lab, laboratory_space

from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.start import draw_regular, informed_start


@pytest.mark.parametrize("target_ms", [10.0, 12.0, 18.0])
def test_the_start_is_feasible_but_for_the_extremes(
    space: DeploymentSpace, lab: Lab, target_ms: float
):
    start = informed_start(space, lab.upper_cost, target_ms)
    assert start[:2] == [space.largest, space.smallest]
    assert len(set(start)) == len(start) <= 16
    assert all(space.contains(config) for config in start)
    regular = lab.upper_cost(start[2:])
    assert len(regular) >= 2
    assert (regular <= target_ms).all()
    assert regular.max() > 0.85 * target_ms


def test_without_a_limit_the_start_is_spread_over_all_sizes(space: DeploymentSpace, lab: Lab):
    start = informed_start(space, lab.upper_cost, None, count=10)
    assert start[:2] == [space.largest, space.smallest]
    assert len(set(start)) == 10
    assert {one.subnet.resolution for one in start} == set(space.subnets.resolutions)
    assert {one.subnet.depth for one in start} == {2, 3, 4}
    thirds = np.histogram(lab.upper_cost(start), bins=3)[0]
    assert (thirds >= 1).all()


def test_regular_draws_leave_out_the_least_important_layers(space: DeploymentSpace):
    rng = np.random.default_rng(0)
    order = space.subnets.removal_order
    drawn = [draw_regular(space, rng) for _ in range(60)]
    assert all(space.contains(one) for one in drawn)
    assert len(set(drawn)) > 20
    for one in drawn:
        gone = set(range(4)) - set(one.subnet.indices)
        assert gone == set(order[: len(gone)])


def test_without_a_limit_the_start_has_the_cheapest_of_each_precision_and_resolution(lab: Lab):
    space = laboratory_space("fp32", "int8")
    start = informed_start(space, lab.upper_cost, None)
    for precision in space.precisions:
        for resolution in space.subnets.resolutions:
            least = space.subnets.smallest.model_copy(update={"resolution": resolution})
            assert Deployment(subnet=least, precision=precision) in start


def test_many_kinds_leave_half_of_the_start_to_be_spread(lab: Lab):
    space = laboratory_space("fp32", "int8")  # six kinds of precision and resolution
    start = informed_start(space, lab.upper_cost, None, count=6)
    shallow = [one for one in start if one.subnet.depth == space.subnets.min_depth]
    assert len(start) == 6
    assert len(shallow) <= 4, "half of them, and the smallest of all"
