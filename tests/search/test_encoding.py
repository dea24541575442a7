import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laboratory import laboratory_space

from hwsearch.errors import UsageError
from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.encoding import decode, encode, parameter_sizes

SAME_SPACE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(
    seed=st.integers(0, 10_000),
    precisions=st.sampled_from([("fp32",), ("int8",), ("int8", "fp32")]),
)
def test_a_deployment_survives_the_round_trip(precisions: tuple[str, ...], seed: int):
    space = laboratory_space(*precisions)
    config = space.sample(np.random.default_rng(seed))
    assert decode(space, encode(space, config)) == config


@SAME_SPACE
@given(data=st.data())
def test_every_table_means_a_subnet_of_the_space(space: DeploymentSpace, data: st.DataObject):
    sizes = parameter_sizes(space)
    values = {name: data.draw(st.integers(0, size - 1), name) for name, size in sizes.items()}
    assert space.contains(decode(space, values))


def test_choices_without_alternative_have_no_parameter(space: DeploymentSpace):
    sizes = parameter_sizes(space)
    assert not any(name.startswith("layer00") for name in sizes)
    assert sizes["resolution"] == 3
    assert sizes["layer01.mlp_width"] == 3
    assert "precision" not in sizes
    assert parameter_sizes(laboratory_space("fp32", "int8")) == {"precision": 2, **sizes}


def test_too_few_layers_bring_back_the_most_important(space: DeploymentSpace):
    values = encode(space, space.largest)
    none_kept = values | {name: 0 for name in values if name.endswith(".keep")}
    assert decode(space, none_kept).subnet.indices == (0, 2)


def test_a_foreign_subnet_has_no_table(space: DeploymentSpace):
    with pytest.raises(UsageError, match="resolution 80"):
        encode(
            space, Deployment(subnet=space.subnets.largest.model_copy(update={"resolution": 80}))
        )
    with pytest.raises(UsageError, match="Precision int8 is not in the search space: take fp32"):
        encode(space, space.largest.model_copy(update={"precision": "int8"}))
