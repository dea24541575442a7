"""Analytic products equal the arithmetic of their names, whatever table they are made of."""

import numpy as np
import pytest

from hwsearch.errors import UsageError
from hwsearch.predictor.models import candidates
from hwsearch.predictor.products import Column, ProductBuilder, columns_by_suffix

COLUMNS = (
    Column("enc_d", "encoder", "width"),
    Column("enc_n", "encoder", "layers"),
    Column("dec_n", "decoder", "layers"),
    Column("dec_d", "decoder", "width"),
    Column("dec_f", "decoder", "hidden"),
    Column("dec_x", "decoder", "cross_heads"),
    Column("dec_span", "decoder", "cross_span"),
)
BUILDER = ProductBuilder(COLUMNS, {"decoder": "encoder"})
ROW = np.array([[8.0, 6.0, 3.0, 4.0, 10.0, 2.0, 1.5]])


def test_one_row_by_hand():
    found = dict(zip(BUILDER.schema.names, BUILDER.matrix(ROW)[0].tolist(), strict=True))
    assert found == {
        "enc_d": 8,
        "enc_n": 6,
        "dec_n": 3,
        "dec_d": 4,
        "dec_f": 10,
        "dec_x": 2,
        "dec_span": 1.5,
        "encoder: width": 8,
        "encoder: layers": 6,
        "encoder: layers × width": 48,
        "encoder: layers × width × width": 384,
        "decoder: width": 4,
        "decoder: layers": 3,
        "decoder: layers × width": 12,
        "decoder: layers × width × width": 48,
        "decoder: layers × width × hidden": 120,
        "decoder: layers × cross_heads": 6,
        "decoder: layers × width × cross_heads": 24,
        "decoder: layers × cross_span": 4.5,
        "decoder: layers × cross_span × cross_heads": 9,
        "decoder: layers × cross_span × memory_width": 36,
        # 6 · 8 · 4 · 8, and 3 · 4 · (8 · 4 + 2 · 10)
        "weights": 1536 + 624,
    }


def test_a_stack_that_reads_no_other_has_no_memory():
    names = ProductBuilder(COLUMNS).schema.names
    assert not [name for name in names if "memory_width" in name]


def test_the_models_find_an_additive_law_in_products():
    rng = np.random.default_rng(0)
    choices = ([512, 640], [6], [1, 2, 3, 4, 5, 6], [512, 640], [1024, 2048], [4, 8], [1, 2, 3])
    table = np.column_stack([rng.choice(values, 90) for values in choices]).astype(float)
    layers, width, hidden = table[:, 2], table[:, 3], table[:, 4]
    latencies = 20 + layers * (12 + width * hidden / 1e5) + 1e-2 * width
    features = BUILDER.matrix(table)
    for model in candidates(BUILDER.schema)[:2]:
        hyper = model.tune(features[:40], latencies[:40])
        found = model.fit(features[:40], latencies[:40], hyper).predict(features[40:])
        assert np.abs(found / latencies[40:] - 1).max() < 0.01


def test_columns_are_told_by_their_endings():
    roles = {"layer_num": "layers", "embed_dim": "width", "ffn_embed_dim_avg": "hidden"}
    names = ["decoder_layer_num", "decoder_embed_dim", "decoder_ffn_embed_dim_avg"]
    assert columns_by_suffix(names, roles) == (
        Column("decoder_layer_num", "decoder", "layers"),
        Column("decoder_embed_dim", "decoder", "width"),
        Column("decoder_ffn_embed_dim_avg", "decoder", "hidden"),
    )
    with pytest.raises(UsageError, match=r"'decoder_colour' has no known ending.*layer_num"):
        columns_by_suffix(["decoder_colour"], roles)


@pytest.mark.parametrize(
    ("columns", "reads", "fault"),
    [
        ((*COLUMNS, Column("again", "encoder", "width")), {}, "same role"),
        (COLUMNS[1:], {}, "width of the stack 'encoder'"),
        (COLUMNS[2:], {"decoder": "encoder"}, "layers of the stack 'encoder'"),
    ],
)
def test_a_description_that_does_not_add_up_is_a_sentence(columns, reads, fault):
    with pytest.raises(UsageError, match=fault):
        ProductBuilder(columns, reads)


@pytest.mark.parametrize("table", [ROW[0], ROW[:, :3], -ROW, ROW * np.nan])
def test_a_table_that_can_not_be_used_is_a_sentence(table):
    with pytest.raises(UsageError):
        BUILDER.matrix(table)
