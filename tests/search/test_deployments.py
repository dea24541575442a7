import numpy as np
import pytest
from laboratory import laboratory_space
from pydantic import ValidationError

from hwsearch.errors import UsageError
from hwsearch.records import Deployment
from hwsearch.search.objectives import Limits


def test_precisions_are_ordered_from_exact_to_coarse():
    space = laboratory_space("int8", "fp32")
    assert space.precisions == ("fp32", "int8")
    assert space.largest == Deployment(subnet=space.subnets.largest, precision="fp32")
    assert space.smallest == Deployment(subnet=space.subnets.smallest, precision="int8")
    assert space.size == 2 * space.subnets.size
    with pytest.raises(ValidationError, match="only once"):
        laboratory_space("int8", "int8")


def test_neighbours_change_the_subnet_or_the_precision():
    space = laboratory_space("fp32", "int8")
    near = list(space.neighbours(space.largest))
    assert len(near) == len(set(near))
    assert all(space.contains(one) for one in near)
    others = [one for one in near if one.precision != "fp32"]
    assert others == [Deployment(subnet=space.subnets.largest, precision="int8")]
    assert [one.subnet for one in near if one.precision == "fp32"] == list(
        space.subnets.neighbours(space.subnets.largest)
    )


def test_samples_are_of_every_precision():
    space = laboratory_space("fp32", "int8")
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(40)]
    assert {one.precision for one in drawn} == {"fp32", "int8"}
    assert all(space.contains(one) for one in drawn)


def test_ids_tell_subnets_and_precisions_apart():
    space = laboratory_space("fp32", "int8")
    everything = space.in_each_precision([space.subnets.largest, space.subnets.smallest])
    assert len({one.id for one in everything}) == 4


def test_the_cost_of_one_target_is_its_latency_and_of_several_the_largest_share():
    one, two = Limits((10.0,)), Limits((10.0, 40.0))
    assert (one.costs([[3.0], [12.0]]) == [3.0, 12.0]).all()
    assert one.cost == 10.0
    assert two.costs([[5.0, 30.0], [9.0, 4.0]]) == pytest.approx([0.75, 0.9])
    assert two.cost == 1.0
    assert two.met([[10.0, 40.0], [10.1, 1.0], [1.0, 40.1]]).tolist() == [True, False, False]
    assert two.excess_ms([[12.0, 30.0]]).tolist() == [[2.0, -10.0]]


@pytest.mark.parametrize("limits_ms", [(), (0.0,), (5.0, -1.0), (float("nan"),), (float("inf"),)])
def test_limits_have_to_be_positive_numbers(limits_ms: tuple[float, ...]):
    with pytest.raises(UsageError, match="a positive latency for each target"):
        Limits(limits_ms)
