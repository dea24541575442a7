import numpy as np
from laboratory import GEOMETRY

from hwsearch.records import Deployment, LayerConfig, SubnetConfig
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.steps import crossed, informed_steps
from hwsearch.space import default_space


def test_informed_steps_stay_in_the_space_and_lead_elsewhere(
    space: DeploymentSpace, deployments: list[Deployment]
):
    for config in deployments[::7]:
        steps = informed_steps(space, config)
        assert config not in steps
        assert all(space.contains(step) for step in steps)


def test_the_least_important_layers_go_first_and_the_most_important_come_back():
    subnets = default_space(
        GEOMETRY.model_copy(update={"depth": 8, "global_layers": ()}), min_depth=2
    ).model_copy(update={"removal_order": (5, 2, 7, 1, 3, 6, 4)})
    space = DeploymentSpace(subnets=subnets)
    whole = {config.subnet.indices for config in informed_steps(space, space.largest)}
    dropped = {tuple(set(range(8)) - set(indices)) for indices in whole} - {()}
    assert dropped == {(5,), (2,), (7,)}
    smallest = {config.subnet.indices for config in informed_steps(space, space.smallest)}
    assert space.smallest.subnet.indices == (0, 4)
    assert {(0, 4, 6), (0, 3, 4), (0, 1, 4)} < smallest
    assert (0, 4, 5) not in smallest


def test_one_layer_gives_what_another_takes(space: DeploymentSpace):
    widths_before = (64, 32, 32, 32)  # the first can't change
    layers = tuple(
        LayerConfig(index=index, mlp_width=width, heads=2)
        for index, width in enumerate(widths_before)
    )
    middle = Deployment(subnet=SubnetConfig(resolution=64, layers=layers))
    widths = {
        tuple(layer.mlp_width for layer in step.subnet.layers)
        for step in informed_steps(space, middle)
        if step.subnet.depth == 4
    }
    assert (64, 16, 64, 32) in widths  # layer 1 is the least important that may go, 2 the most
    assert (64, 16, 16, 16) in widths
    assert (64, 64, 64, 64) in widths


def test_a_child_has_each_choice_from_a_parent(
    space: DeploymentSpace, deployments: list[Deployment]
):
    rng = np.random.default_rng(0)
    for _ in range(60):
        one, other = (deployments[place] for place in rng.integers(len(deployments), size=2))
        child = crossed(space, one, other, rng=rng)
        assert space.contains(child)
        inherited = {*one.subnet.layers, *other.subnet.layers}
        assert set(child.subnet.layers) <= inherited
        assert child.subnet.resolution in {one.subnet.resolution, other.subnet.resolution}
