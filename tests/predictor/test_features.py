"""Features equal the arithmetic of costs, row by row, however many rows there are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import GEOMETRY, SPACE, sampled

from hwsearch.costs import encoder_macs, encoder_params
from hwsearch.errors import UsageError
from hwsearch.predictor import features
from hwsearch.predictor.features import SCHEMA, FeatureBuilder
from hwsearch.records import LayerConfig, SubnetConfig

BUILDER = FeatureBuilder(GEOMETRY)


def subnet(resolution: int, *layers: tuple[int, int, int]) -> SubnetConfig:
    return SubnetConfig(
        resolution=resolution,
        layers=tuple(LayerConfig(index=i, mlp_width=w, heads=h) for i, w, h in layers),
    )


def test_one_config_by_hand():
    # 192 pixels: 12 × 12 patches, in 2 × 2 windows of 8 × 8, so 256 tokens with padding.
    row = BUILDER.matrix([subnet(192, (0, 768, 6), (2, 384, 3))])[0]
    found = dict(zip(SCHEMA.names, row.tolist(), strict=True))
    expected = {
        "resolution": 192,
        "depth": 2,
        "depth_squared": 4,
        "image_tokens": 144,
        "padded_tokens": 256,
        "patch_embed_and_neck_macs": 144 * 192 * 768 + 144 * 128 * (192 + 9 * 128),
        "windowed_blocks": 1,
        "windowed_tokens": 256,
        "windowed_mlp_macs": 42_467_328,  # 2 · 144 · 192 · 768
        "windowed_projection_macs": 37_748_736,  # 4 · 256 · 192 · 192
        "windowed_attention_macs": 6_291_456,  # 2 · 256 · 64 · 192
        "windowed_rel_pos_macs": 786_432,  # 2 · 256 · 8 · 192
        "windowed_weight_bytes": 4 * 445_824,
        "windowed_activation_bytes": 4 * 617_472,
        "global_blocks": 1,
        "global_tokens": 144,
        "global_mlp_macs": 21_233_664,  # 2 · 144 · 192 · 384
        "global_projection_macs": 10_616_832,  # 4 · 144 · 192 · 96
        "global_attention_macs": 3_981_312,  # 2 · 144 · 144 · 96
        "global_rel_pos_macs": 331_776,  # 2 · 144 · 12 · 96
        "windowed_mlp_quarter_4": 144,
        "windowed_heads_quarter_4": 256,
        "global_mlp_quarter_2": 144,
        "global_heads_quarter_2": 144,
        "global_mlp_quarter_1": 0,
        "global_mlp_quarter_3": 0,
    }
    assert {name: found[name] for name in expected} == expected


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_totals_equal_the_costs_module(seed: int):
    config = SPACE.sample(np.random.default_rng(seed))
    macs, params = BUILDER.matrix([config])[0, SCHEMA.places(["macs", "params"])]
    assert macs == encoder_macs(GEOMETRY, config)
    assert params == encoder_params(GEOMETRY, config)


def test_parts_sum_to_all_macs():
    matrix = BUILDER.matrix(sampled(20, seed=0))
    for columns, count in ((SCHEMA.costs, 9), (SCHEMA.operators, 5)):
        parts = [name for name in columns if name.endswith("_macs")]
        assert len(parts) == count
        assert np.array_equal(
            matrix[:, SCHEMA.places(parts)].sum(axis=1), matrix[:, SCHEMA.places(["macs"])][:, 0]
        )


def test_a_row_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch):
    configs = sampled(50, seed=3)
    together = BUILDER.matrix(configs)
    alone = np.vstack([BUILDER.matrix([config]) for config in configs])
    assert np.array_equal(together, alone)
    monkeypatch.setattr(features, "COUNT_MATRIX_ELEMENTS", 200)  # a few rows a pass
    assert np.array_equal(BUILDER.matrix(configs), together)


def test_no_configs_give_no_rows():
    assert BUILDER.matrix([]).shape == (0, len(SCHEMA.names))


@pytest.mark.parametrize(
    "stranger",
    [
        subnet(250, (0, 768, 6)),
        subnet(512, (0, 768, 6)),
        subnet(256, (12, 768, 6)),
        subnet(256, (0, 776, 6)),
        subnet(256, (0, 768, 7)),
    ],
)
def test_a_subnet_of_another_geometry_is_refused(stranger: SubnetConfig):
    with pytest.raises(UsageError, match=stranger.id):
        BUILDER.matrix([SPACE.largest, stranger])
