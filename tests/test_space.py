"""The search space: what it holds, how it is drawn from, and how its subnets border each other."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny import GEOMETRY, subnet, tiny_space

from hwsearch.costs import encoder_params
from hwsearch.errors import UsageError
from hwsearch.records import LayerConfig, SubnetConfig
from hwsearch.space import LayerChoices, SearchSpace, default_resolutions, default_space

choices = st.lists(st.integers(1, 30), min_size=1, max_size=3, unique=True).map(
    lambda values: tuple(sorted(values))
)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Any space of up to four layers."""
    layers = tuple(
        LayerChoices(
            index=index,
            mlp_widths=draw(choices),
            heads=draw(choices),
            removable=draw(st.booleans()),
        )
        for index in range(draw(st.integers(1, 4)))
    )
    removable = [layer.index for layer in layers if layer.removable]
    fewest = max(1, len(layers) - len(removable))
    return SearchSpace(
        resolutions=draw(choices),
        layers=layers,
        min_depth=draw(st.integers(fewest, len(layers))),
        removal_order=tuple(draw(st.permutations(removable))),
    )


seeds = st.integers(0, 2**32 - 1)


def every_subnet(space: SearchSpace) -> Iterator[SubnetConfig]:
    """All subnets, by trying everything."""
    options = [
        [None] * layer.removable
        + [
            LayerConfig(index=layer.index, mlp_width=width, heads=heads)
            for width, heads in itertools.product(layer.mlp_widths, layer.heads)
        ]
        for layer in space.layers
    ]
    for resolution, *picked in itertools.product(space.resolutions, *options):
        kept = tuple(layer for layer in picked if layer is not None)
        if len(kept) >= space.min_depth:
            yield SubnetConfig(resolution=resolution, layers=kept)


@given(spaces(), seeds)
def test_every_sample_is_a_subnet_of_the_space(space: SearchSpace, seed: int):
    rng = np.random.default_rng(seed)
    for probabilities in (None, {}, dict.fromkeys(space.removal_order, 0.5)):
        config = space.sample(rng, probabilities)
        assert space.contains(config)
        space.validate_config(config)


def test_samples_depend_on_the_seed_alone(space: SearchSpace):
    first, second = (
        [space.sample(rng) for _ in range(20)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert first == second
    assert len(set(first)) > 10


def test_uniform_samples_reach_every_choice(space: SearchSpace):
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(400)]
    assert {config.resolution for config in drawn} == set(space.resolutions)
    assert {config.depth for config in drawn} == {2, 3, 4}
    seen = {(layer.index, layer.mlp_width, layer.heads) for c in drawn for layer in c.layers}
    every = {
        (layer.index, width, heads)
        for layer in space.layers
        for width in layer.mlp_widths
        for heads in layer.heads
    }
    assert seen == every


def test_removal_probabilities_are_followed(space: SearchSpace):
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng, {1: 0.0, 2: 0.8, 3: 0.1}) for _ in range(1000)]
    gone = {index: np.mean([index not in c.indices for c in drawn]) for index in range(4)}
    assert gone[0] == gone[1] == 0
    assert gone[2] == pytest.approx(0.8, abs=0.04)
    assert gone[3] == pytest.approx(0.1, abs=0.04)


def test_graded_removal_stops_at_the_least_depth(space: SearchSpace):
    certain = space.sample(np.random.default_rng(0), {1: 1.0, 2: 1.0, 3: 1.0})
    # removal_order is 2, 1, 3 and two layers have to stay.
    assert certain.indices == (0, 3)


@given(spaces())
def test_size_is_the_number_of_subnets(space: SearchSpace):
    assert space.size == len(set(every_subnet(space)))


@given(spaces())
def test_every_subnet_found_by_trying_is_contained(space: SearchSpace):
    assert all(space.contains(config) for config in itertools.islice(every_subnet(space), 300))


@given(spaces(), seeds)
def test_neighbours_are_other_subnets_of_the_space_one_choice_away(space: SearchSpace, seed: int):
    config = space.sample(np.random.default_rng(seed))
    neighbours = list(space.neighbours(config))
    assert len(set(neighbours)) == len(neighbours)
    for neighbour in neighbours:
        assert space.contains(neighbour)
        assert changed_choices(config, neighbour) == 1


def changed_choices(one: SubnetConfig, other: SubnetConfig) -> int:
    """In how many choices two subnets differ; a layer left out or put back is one."""
    ours = {layer.index: layer for layer in one.layers}
    theirs = {layer.index: layer for layer in other.layers}
    changed = int(one.resolution != other.resolution) + len(ours.keys() ^ theirs.keys())
    for index in ours.keys() & theirs.keys():
        changed += ours[index].mlp_width != theirs[index].mlp_width
        changed += ours[index].heads != theirs[index].heads
    return changed


@given(spaces(), seeds)
def test_steps_of_resolution_width_and_heads_lead_back(space: SearchSpace, seed: int):
    config = space.sample(np.random.default_rng(seed))
    for neighbour in space.neighbours(config):
        if neighbour.indices == config.indices:
            assert config in space.neighbours(neighbour)


@given(spaces(), seeds)
def test_a_removed_layer_comes_back_at_full_width(space: SearchSpace, seed: int):
    config = space.sample(np.random.default_rng(seed))
    for neighbour in space.neighbours(config):
        for index in set(neighbour.indices) - set(config.indices):
            returned = neighbour.layers[neighbour.indices.index(index)]
            assert returned == space.layers[index].largest


@given(spaces())
def test_neighbours_connect_the_whole_space(space: SearchSpace):
    if space.size > 200:
        return
    reached, frontier = {space.largest}, [space.largest]
    while frontier:
        new = set(space.neighbours(frontier.pop())) - reached
        reached |= new
        frontier += new
    assert reached == set(every_subnet(space))


def test_neighbours_of_a_stranger_are_refused(space: SearchSpace):
    with pytest.raises(UsageError, match="resolution 96"):
        list(space.neighbours(subnet(resolution=96)))


def test_largest_and_smallest(space: SearchSpace):
    assert space.largest == subnet()
    # Two of four layers stay: the removal order begins with 2 and 1.
    assert space.smallest == subnet(resolution=64, indices=(0, 3), mlp_width=16, heads=1)


@given(spaces())
def test_largest_and_smallest_belong_to_the_space_and_bound_it(space: SearchSpace):
    for bound in (space.largest, space.smallest):
        assert space.contains(bound)
    assert space.largest.depth == len(space.layers)
    assert space.smallest.depth == space.min_depth


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (subnet(resolution=80), r"resolution 80 is none of \[64, 112, 128\]"),
        (subnet(indices=(0,)), "1 layers are fewer than 2"),
        (subnet(indices=(1, 2, 3)), "layer 0 can't be left out"),
        (subnet(indices=(0, 1, 7)), "there is no layer 7"),
        (subnet(mlp_width=24), r"MLP width 24 of layer 1 is none of \[16, 32, 64\]"),
        (subnet(heads=3), r"3 heads of layer 1 are none of \[1, 2, 4\]"),
    ],
)
def test_a_stranger_is_refused_with_the_choice_at_fault(config: SubnetConfig, fault: str):
    space = tiny_space()
    assert not space.contains(config)
    with pytest.raises(UsageError, match=fault):
        space.validate_config(config)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"resolutions": (128, 64)}, "ascend"),
        ({"resolutions": ()}, "at least 1 item"),
        ({"removal_order": (1, 2)}, "has to name each of"),
        ({"removal_order": (0, 1, 2, 3)}, "has to name each of"),
        ({"min_depth": 5}, "not between"),
    ],
)
def test_inconsistent_spaces_are_refused(changes: dict[str, object], fault: str):
    with pytest.raises(ValidationError, match=fault):
        SearchSpace.model_validate(tiny_space().model_dump() | changes)


def test_a_gap_in_the_layers_is_refused(space: SearchSpace):
    fields = space.model_dump()
    fields["layers"] = [layer for layer in fields["layers"] if layer["index"] != 1]
    with pytest.raises(ValidationError, match="without a gap"):
        SearchSpace.model_validate(fields)


def test_a_space_survives_json(space: SearchSpace):
    assert SearchSpace.from_json(space.to_json()) == space


def test_the_default_space_keeps_layer_0_whole():
    space = default_space(GEOMETRY)
    first, second = space.layers[:2]
    assert not first.removable
    assert (first.mlp_widths, first.heads) == ((64,), (4,))
    assert (second.mlp_widths, second.heads) == ((16, 32, 48, 64), (2, 3, 4))
    assert space.resolutions == (64, 96, 112, 128)
    assert space.min_depth == 2
    assert space.largest == subnet()


def test_default_resolutions_of_the_official_models():
    geometry = GEOMETRY.model_copy(update={"image_size": 1024})
    assert default_resolutions(geometry) == (512, 768, 896, 1024)


def test_default_widths_are_multiples_of_8():
    geometry = GEOMETRY.model_copy(update={"mlp_width": 200, "embed_dim": 100})
    widths = default_space(geometry, width_ratios=(0.3, 0.31, 0.77, 1.0)).layers[1].mlp_widths
    assert widths == (64, 152, 200)


@pytest.mark.parametrize("width", [100, 108, 4])
def test_the_full_width_is_the_model_s_own(width: int):
    space = default_space(GEOMETRY.model_copy(update={"mlp_width": width}))
    assert space.largest.layers[-1].mlp_width == width
    assert all(one % 8 == 0 and one < width for one in space.layers[-1].mlp_widths[:-1])


@pytest.mark.parametrize("resolution", [100, 144])
def test_resolutions_that_the_geometry_cannot_have_are_refused(resolution: int):
    with pytest.raises(UsageError, match=f"Resolution {resolution} can't be used"):
        default_space(GEOMETRY, resolutions=(64, resolution))


def test_more_layers_than_there_are_are_refused():
    with pytest.raises(UsageError, match="depth of 5 is more than the 4 layers"):
        default_space(GEOMETRY, min_depth=5)


def test_regular_subnets_reach_from_the_smallest_to_the_largest():
    space = default_space(GEOMETRY, removal_order=(3, 1, 2), min_depth=2)
    assert space.between(0.0) == space.smallest
    assert space.between(1.0) == space.largest
    sizes = [encoder_params(GEOMETRY, space.between(share / 20)) for share in range(21)]
    assert sizes == sorted(sizes)
    assert all(space.contains(space.between(share / 20)) for share in range(21))
    assert space.between(0.4).indices == (0, 1, 2)  # layer 3 is the first to go


def test_layer_0_is_narrowed_only_where_it_is_asked_for():
    full = default_space(GEOMETRY).smallest.layers[0]
    assert (full.mlp_width, full.heads) == (GEOMETRY.mlp_width, GEOMETRY.heads)
    narrow = default_space(GEOMETRY, narrow_first=True)
    assert narrow.smallest.layers[0].mlp_width < GEOMETRY.mlp_width
    assert narrow.smallest.layers[0].heads < GEOMETRY.heads
    assert not narrow.layers[0].removable
    assert narrow.largest == default_space(GEOMETRY).largest
