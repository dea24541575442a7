"""Subnet configurations as a matrix of analytic costs.

A subnet's image encoder is a bag of blocks, and a block is a kind (windowed or global), an MLP
width and a number of heads. So a configuration is a row of counts over the block types that
occur, and its costs are these counts times the types' costs at the configuration's resolution:
one `bincount` and one matrix product a resolution, whatever the number of configurations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from hwsearch.costs import BlockCost, block_cost, encoder_macs, encoder_params
from hwsearch.errors import UsageError
from hwsearch.predictor.schema import FeatureSchema
from hwsearch.records import LayerConfig, SamGeometry, SubnetConfig

KINDS = ("windowed", "global")
COSTS = (
    "blocks",
    "tokens",
    "mlp_macs",
    "projection_macs",
    "attention_macs",
    "rel_pos_macs",
    "weight_bytes",
    "activation_bytes",
)
WHOLE = (
    "resolution",
    "depth",
    "depth_squared",
    "image_tokens",
    "padded_tokens",
    "patch_embed_and_neck_macs",
    "macs",
    "params",
)
BYTES_PER_ELEMENT = 4  # fp32; another precision scales a column, which no model notices
COUNT_MATRIX_ELEMENTS = 4_000_000  # bounds the memory of one pass: 32 MB of float64

_BLOCK_COSTS = tuple(f"{kind}_{cost}" for kind in KINDS for cost in COSTS)
# A matrix product takes its time whatever kind of block it stands in.
_OPERATOR_COSTS = tuple(f"all_{cost}" for cost in COSTS)
_FIXED_COSTS = ("patch_embed_and_neck_macs", "resolution", "padded_tokens")
# A table of block times: tokens that pass an MLP, or an attention, of each quarter of full size.
QUARTERS = (1, 2, 3, 4)
TABLE = tuple(
    f"{kind}_{part}_quarter_{quarter}"
    for kind in KINDS
    for part in ("mlp", "heads")
    for quarter in QUARTERS
)

SCHEMA = FeatureSchema(
    names=(*WHOLE, *_BLOCK_COSTS, *TABLE, *_OPERATOR_COSTS),
    costs=(*_FIXED_COSTS, *_BLOCK_COSTS),
    shape=(
        "macs",
        "resolution",
        "patch_embed_and_neck_macs",
        *(
            f"{kind}_{cost}"
            for kind in KINDS
            for cost in ("blocks", "tokens", "mlp_macs", "projection_macs", "attention_macs")
        ),
    ),
    sizes=(("params_only", "params"), ("macs_only", "macs")),
    table=TABLE,
    bends=("depth_squared",),
    operators=(*_FIXED_COSTS, *_OPERATOR_COSTS),
)
_NAMES = SCHEMA.names


@dataclass(frozen=True)
class ConfigArrays:
    """Configurations as flat arrays; the layers of all of them one after the other.

    Attributes:
        resolution: (n,) input side in pixels.
        owner: (layers,) which configuration a layer belongs to.
        index: (layers,) its place in the full encoder.
        mlp_width: (layers,) its MLP width.
        heads: (layers,) its attention heads.
    """

    resolution: NDArray[np.int64]
    owner: NDArray[np.int64]
    index: NDArray[np.int64]
    mlp_width: NDArray[np.int64]
    heads: NDArray[np.int64]

    @classmethod
    def of(cls, configs: Sequence[SubnetConfig]) -> ConfigArrays:
        """Flatten `configs`; attribute access on the records is most of the cost of a feature."""
        depths = [len(config.layers) for config in configs]
        layers = [layer for config in configs for layer in config.layers]
        return cls(
            resolution=_attribute(configs, "resolution"),
            owner=np.repeat(np.arange(len(configs)), depths),
            index=_attribute(layers, "index"),
            mlp_width=_attribute(layers, "mlp_width"),
            heads=_attribute(layers, "heads"),
        )


@dataclass(frozen=True)
class FeatureBuilder:
    """Turns the subnets of one geometry into rows of analytic costs.

    Columns, in the order of `SCHEMA.names`: what belongs to the whole encoder (`WHOLE`), each kind
    of block's summed costs (`COSTS`), the same work by the quarter of full size that an MLP's
    width or the heads fall into (`TABLE`), then the costs of all kinds added up. An entry for every
    pair of width and heads would be too fine: a non-negative sum that got them erred by 7.1 instead
    of 2.5 % with 24 samples, by 2.9 instead of 2.2 % with 64 (ONNX Runtime, one thread, 192-wide
    encoders).
    """

    geometry: SamGeometry

    def matrix(self, configs: Sequence[SubnetConfig]) -> NDArray[np.float64]:
        """The features of `configs`, float64 of shape (n, len(SCHEMA.names)).

        Raises:
            UsageError: a configuration can't be a subnet of this geometry.
        """
        arrays = ConfigArrays.of(configs)
        self._check(configs, arrays)
        code, types = self._block_types(arrays)
        features = np.empty((len(configs), len(_NAMES)))
        step = max(1, COUNT_MATRIX_ELEMENTS // max(len(types), 1))
        for start in range(0, len(configs), step):
            stop = min(start + step, len(configs))
            first, last = np.searchsorted(arrays.owner, (start, stop))
            cell = (arrays.owner[first:last] - start) * len(types) + code[first:last]
            counts = np.bincount(cell, minlength=(stop - start) * len(types))
            features[start:stop] = self._from_counts(
                counts.reshape(stop - start, len(types)).astype(np.float64),
                arrays.resolution[start:stop],
                types,
            )
        features[:, _COLUMN["depth_squared"]] = features[:, _COLUMN["depth"]] ** 2
        return features

    def _check(self, configs: Sequence[SubnetConfig], arrays: ConfigArrays) -> None:
        geometry = self.geometry
        wrong_side = (arrays.resolution % geometry.patch_size != 0) | (
            arrays.resolution > geometry.image_size
        )
        wrong_layer = (
            (arrays.index >= geometry.depth)
            | (arrays.mlp_width > geometry.mlp_width)
            | (arrays.heads > geometry.heads)
        )
        offenders = np.concatenate([np.flatnonzero(wrong_side), arrays.owner[wrong_layer]])
        if offenders.size:
            raise UsageError(
                f"Subnet {configs[offenders.min()].id} is no subnet of {geometry.id}: it takes "
                f"resolutions in multiples of {geometry.patch_size} up to {geometry.image_size}, "
                f"layers below {geometry.depth}, MLP widths up to {geometry.mlp_width} and up to "
                f"{geometry.heads} heads."
            )

    def _block_types(
        self, arrays: ConfigArrays
    ) -> tuple[NDArray[np.int64], list[tuple[int, int, int]]]:
        """Number the block types that occur; give each layer's number and the list of types.

        A table over all possible codes replaces the sort of `numpy.unique`.
        """
        geometry = self.geometry
        shape = (len(KINDS), geometry.mlp_width + 1, geometry.heads + 1)
        kind = self._kind_of_layer[arrays.index]
        flat = np.ravel_multi_index((kind, arrays.mlp_width, arrays.heads), shape)
        number = np.zeros(np.prod(shape), dtype=np.int64)
        number[flat] = 1
        present = np.flatnonzero(number)
        number[present] = np.arange(len(present))
        kinds, widths, heads = (axis.tolist() for axis in np.unravel_index(present, shape))
        return number[flat], list(zip(kinds, widths, heads, strict=True))

    @cached_property
    def _kind_of_layer(self) -> NDArray[np.int64]:
        return np.array([self.geometry.is_global(i) for i in range(self.geometry.depth)]).astype(
            np.int64
        )

    def _from_counts(
        self,
        counts: NDArray[np.float64],
        resolutions: NDArray[np.int64],
        types: list[tuple[int, int, int]],
    ) -> NDArray[np.float64]:
        features = np.empty((len(counts), len(_NAMES)))
        for resolution in np.unique(resolutions).tolist():
            rows = resolutions == resolution
            whole, table = self._tables(resolution, types)
            features[rows] = whole + counts[rows] @ table
        return features

    def _tables(
        self, resolution: int, types: list[tuple[int, int, int]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What every subnet has at this resolution, (f,); what a block type adds, (types, f)."""
        geometry = self.geometry
        whole = np.zeros(len(_NAMES))
        table = np.zeros((len(types), len(_NAMES)))
        for row, (kind, width, heads) in zip(table, types, strict=True):
            layer = LayerConfig(index=self._example[kind], mlp_width=width, heads=heads)
            cost = block_cost(geometry, layer, resolution)
            _put(row, "depth", 1)
            _put(row, "macs", cost.macs)
            _put(row, "params", cost.params)
            for name, value in _block_values(geometry, layer, resolution, cost).items():
                _put(row, f"{KINDS[kind]}_{name}", value)
                _put(row, f"all_{name}", value)
            mlp, attention = (
                math.ceil(len(QUARTERS) * size / full)
                for size, full in ((width, geometry.mlp_width), (heads, geometry.heads))
            )
            _put(row, f"{KINDS[kind]}_mlp_quarter_{mlp}", (resolution // geometry.patch_size) ** 2)
            _put(row, f"{KINDS[kind]}_heads_quarter_{attention}", cost.tokens)
        grid = resolution // geometry.patch_size
        windows = -(-grid // geometry.window_size)
        # The costs of a one-block encoder less its block: what no block can change.
        bare = LayerConfig(index=0, mlp_width=1, heads=1)
        one_block = SubnetConfig(resolution=resolution, layers=(bare,))
        block = block_cost(geometry, bare, resolution)
        fixed_macs = encoder_macs(geometry, one_block) - block.macs
        _put(whole, "resolution", resolution)
        _put(whole, "image_tokens", grid**2)
        _put(whole, "padded_tokens", (windows * geometry.window_size) ** 2)
        _put(whole, "patch_embed_and_neck_macs", fixed_macs)
        _put(whole, "macs", fixed_macs)
        _put(whole, "params", encoder_params(geometry, one_block) - block.params)
        return whole, table

    @cached_property
    def _example(self) -> dict[int, int]:
        """Some layer's index for each kind that the geometry has."""
        return {int(kind): index for index, kind in enumerate(self._kind_of_layer)}


_COLUMN = {name: column for column, name in enumerate(_NAMES)}


def _block_values(
    geometry: SamGeometry, layer: LayerConfig, resolution: int, cost: BlockCost
) -> dict[str, int]:
    """A block's entries of `COSTS`.

    Activations are what the block's operators write: two norms, two residual sums and the MLP's
    output on the image's tokens, its hidden units; queries, keys, values, attention's output and
    the projection's on the tokens with window padding; a score a head, query and key; and a
    relative-position bias a head, query and coordinate.
    """
    dim, inner = geometry.embed_dim, layer.heads * geometry.head_dim
    grid = resolution // geometry.patch_size
    side = grid if geometry.is_global(layer.index) else geometry.window_size
    activations = (
        grid**2 * (5 * dim + layer.mlp_width)
        + cost.tokens * (4 * inner + dim)
        + cost.tokens * layer.heads * (side**2 + 2 * side)
    )
    values = (
        1,
        cost.tokens,
        cost.mlp_macs,
        cost.projection_macs,
        cost.attention_macs,
        cost.rel_pos_macs,
        cost.params * BYTES_PER_ELEMENT,
        activations * BYTES_PER_ELEMENT,
    )
    return dict(zip(COSTS, values, strict=True))


def _attribute(records: Sequence[object], name: str) -> NDArray[np.int64]:
    return np.fromiter(map(attrgetter(name), records), dtype=np.int64, count=len(records))


def _put(row: NDArray[np.float64], name: str, value: float) -> None:
    row[_COLUMN[name]] = value
