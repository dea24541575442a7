"""The search space: which subnets of a supernet there are. Knows neither torch nor Optuna."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from hwsearch.errors import UsageError
from hwsearch.records import Index, LayerConfig, Record, SamGeometry, SubnetConfig


class LayerChoices(Record):
    """What one layer of the full encoder may become: its MLP widths, its heads, or nothing."""

    index: Index
    mlp_widths: tuple[PositiveInt, ...] = Field(min_length=1)
    heads: tuple[PositiveInt, ...] = Field(min_length=1)
    removable: bool = True

    @model_validator(mode="after")
    def _choices_ascend(self) -> Self:
        _check_ascending("mlp_widths", self.mlp_widths)
        _check_ascending("heads", self.heads)
        return self

    @property
    def largest(self) -> LayerConfig:
        """The layer at full width."""
        return LayerConfig(index=self.index, mlp_width=self.mlp_widths[-1], heads=self.heads[-1])

    @property
    def smallest(self) -> LayerConfig:
        """The layer at its smallest width, but kept."""
        return LayerConfig(index=self.index, mlp_width=self.mlp_widths[0], heads=self.heads[0])


class SearchSpace(Record):
    """Choices of resolution, and of each layer: left out, or kept with an MLP width and heads.

    `removal_order` lists removable layers, the least important first; `smallest` leaves out the
    first of them. A subnet keeps at least `min_depth` layers.
    """

    resolutions: tuple[PositiveInt, ...] = Field(min_length=1)
    layers: tuple[LayerChoices, ...] = Field(min_length=1)
    min_depth: PositiveInt
    removal_order: tuple[Index, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_ascending("resolutions", self.resolutions)
        indices = [choices.index for choices in self.layers]
        if indices != list(range(len(indices))):
            raise ValueError(f"layers have to be 0, 1, 2, … without a gap, not {indices}")
        removable = sorted(choices.index for choices in self.layers if choices.removable)
        if sorted(self.removal_order) != removable:
            raise ValueError(
                f"removal_order {self.removal_order} has to name each of {removable} once"
            )
        fewest = len(indices) - len(removable)
        if not max(fewest, 1) <= self.min_depth <= len(indices):
            raise ValueError(
                f"min_depth {self.min_depth} is not between {max(fewest, 1)} and {len(indices)}"
            )
        return self

    @property
    def largest(self) -> SubnetConfig:
        """Every layer at full width, at the highest resolution."""
        return SubnetConfig(
            resolution=self.resolutions[-1],
            layers=tuple(choices.largest for choices in self.layers),
        )

    @property
    def smallest(self) -> SubnetConfig:
        """The fewest and least wide layers, at the lowest resolution."""
        return self.between(0.0)

    def between(self, share: float) -> SubnetConfig:
        """The regular subnet at a share of the way from `smallest` (0) to `largest` (1).

        Resolution, depth, MLP widths and heads all go the same share of their choices; layers
        are left out in the order of removal.
        """
        depth = self.min_depth + round(share * (len(self.layers) - self.min_depth))
        dropped = set(self.removal_order[: len(self.layers) - depth])
        return SubnetConfig(
            resolution=_at(self.resolutions, share),
            layers=tuple(
                LayerConfig(
                    index=choices.index,
                    mlp_width=_at(choices.mlp_widths, share),
                    heads=_at(choices.heads, share),
                )
                for choices in self.layers
                if choices.index not in dropped
            ),
        )

    @property
    def size(self) -> int:
        """How many subnets there are (exact, an integer of any length)."""
        counts = [1]  # counts[k]: ways to fill the layers seen so far with k of them kept
        for choices in self.layers:
            kept = len(choices.mlp_widths) * len(choices.heads)
            longer = [0, *(kept * count for count in counts)]
            if choices.removable:
                longer = [new + old for new, old in zip(longer, [*counts, 0], strict=True)]
            counts = longer
        return len(self.resolutions) * sum(counts[self.min_depth :])

    def contains(self, config: SubnetConfig) -> bool:
        """Whether `config` is a subnet of this space."""
        return self._fault(config) is None

    def validate_config(self, config: SubnetConfig) -> None:
        """Do nothing if `config` belongs to this space.

        Raises:
            UsageError: it does not; the message names the first choice that is not allowed.
        """
        fault = self._fault(config)
        if fault is not None:
            raise UsageError(f"Subnet {config.id} is not in the search space: {fault}.")

    def sample(
        self, rng: np.random.Generator, removal_probabilities: dict[int, float] | None = None
    ) -> SubnetConfig:
        """Draw a subnet: depth first, then which layers stay, then their widths and heads.

        Args:
            rng: the source of all randomness.
            removal_probabilities: layer index → probability of being left out. Without them the
                depth is uniform and all removable layers are alike.
        """
        dropped = (
            self._draw_uniform_removals(rng)
            if removal_probabilities is None
            else self._draw_graded_removals(rng, removal_probabilities)
        )
        return SubnetConfig(
            resolution=_pick(rng, self.resolutions),
            layers=tuple(
                LayerConfig(
                    index=choices.index,
                    mlp_width=_pick(rng, choices.mlp_widths),
                    heads=_pick(rng, choices.heads),
                )
                for choices in self.layers
                if choices.index not in dropped
            ),
        )

    def neighbours(self, config: SubnetConfig) -> Iterator[SubnetConfig]:
        """Every subnet of the space that is one step in one choice away.

        A step is the next resolution, MLP width or number of heads up or down, a layer left out,
        or a layer put back at its full width.

        Raises:
            UsageError: `config` is not in this space.
        """
        self.validate_config(config)
        for resolution in _steps(self.resolutions, config.resolution):
            yield config.model_copy(update={"resolution": resolution})
        kept = {layer.index: layer for layer in config.layers}
        for choices in self.layers:
            layer = kept.get(choices.index)
            if layer is None:
                yield _with_layers(config, {**kept, choices.index: choices.largest})
                continue
            for width in _steps(choices.mlp_widths, layer.mlp_width):
                narrowed = layer.model_copy(update={"mlp_width": width})
                yield _with_layers(config, {**kept, choices.index: narrowed})
            for heads in _steps(choices.heads, layer.heads):
                narrowed = layer.model_copy(update={"heads": heads})
                yield _with_layers(config, {**kept, choices.index: narrowed})
            if choices.removable and config.depth > self.min_depth:
                rest = {index: other for index, other in kept.items() if index != choices.index}
                yield _with_layers(config, rest)

    def _fault(self, config: SubnetConfig) -> str | None:
        return next(self._faults(config), None)

    def _faults(self, config: SubnetConfig) -> Iterator[str]:
        if config.resolution not in self.resolutions:
            yield f"resolution {config.resolution} is none of {list(self.resolutions)}"
        if config.depth < self.min_depth:
            yield f"{config.depth} layers are fewer than {self.min_depth}"
        kept = set(config.indices)
        for choices in self.layers:
            if not choices.removable and choices.index not in kept:
                yield f"layer {choices.index} can't be left out"
        for layer in config.layers:
            if layer.index >= len(self.layers):
                yield f"there is no layer {layer.index}"
                continue
            choices = self.layers[layer.index]
            where = f"of layer {layer.index}"
            if layer.mlp_width not in choices.mlp_widths:
                widths = list(choices.mlp_widths)
                yield f"MLP width {layer.mlp_width} {where} is none of {widths}"
            if layer.heads not in choices.heads:
                yield f"{layer.heads} heads {where} are none of {list(choices.heads)}"

    def _draw_uniform_removals(self, rng: np.random.Generator) -> set[int]:
        depth = int(rng.integers(self.min_depth, len(self.layers) + 1))
        return set(
            rng.choice(self.removal_order, size=len(self.layers) - depth, replace=False).tolist()
            if self.removal_order
            else ()
        )

    def _draw_graded_removals(
        self, rng: np.random.Generator, probabilities: dict[int, float]
    ) -> set[int]:
        most = len(self.layers) - self.min_depth
        drawn = [i for i in self.removal_order if rng.random() < probabilities.get(i, 0.0)]
        return set(drawn[:most])


def default_space(
    geometry: SamGeometry,
    *,
    resolutions: tuple[int, ...] | None = None,
    width_ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0),
    head_ratios: tuple[float, ...] = (0.5, 0.75, 1.0),
    min_depth: int | None = None,
    removal_order: tuple[int, ...] | None = None,
    narrow_first: bool = False,
) -> SearchSpace:
    """The space that a supernet gets when the user asks for no other.

    Layer 0 is never removed, and never narrowed (SuperSAM, arXiv 2501.08504, section 3) but with
    `narrow_first`, for spaces that reach down to where one full layer is a large part. MLP
    widths below the full one are rounded to multiples of 8, heads to whole heads. Resolutions are
    whole numbers of patches; the default keeps 1, 7/8, 3/4 and 1/2 of the full side.

    Raises:
        UsageError: a resolution or a depth that this geometry can't have.
    """
    resolutions = resolutions or default_resolutions(geometry)
    for resolution in resolutions:
        if resolution % geometry.patch_size or not 0 < resolution <= geometry.image_size:
            raise UsageError(
                f"Resolution {resolution} can't be used: take multiples of {geometry.patch_size} "
                f"up to {geometry.image_size}."
            )
    if geometry.image_size not in resolutions:
        raise UsageError(
            f"The resolutions {list(resolutions)} lack the model's own: add {geometry.image_size}, "
            "so that the largest subnet is the model itself."
        )
    _check_ratios("MLP width", width_ratios)
    _check_ratios("head", head_ratios)
    widths = tuple(sorted({_part_of_width(geometry.mlp_width, ratio) for ratio in width_ratios}))
    heads = tuple(sorted({max(1, round(geometry.heads * ratio)) for ratio in head_ratios}))
    layers = tuple(
        LayerChoices(index=index, mlp_widths=widths, heads=heads, removable=index > 0)
        if index or narrow_first
        else LayerChoices(
            index=0, mlp_widths=(geometry.mlp_width,), heads=(geometry.heads,), removable=False
        )
        for index in range(geometry.depth)
    )
    depth = min_depth or max(1, math.ceil(geometry.depth / 2))
    if depth > geometry.depth:
        raise UsageError(f"A depth of {depth} is more than the {geometry.depth} layers there are.")
    return SearchSpace(
        resolutions=tuple(sorted(set(resolutions))),
        layers=layers,
        min_depth=depth,
        removal_order=removal_order or tuple(range(geometry.depth - 1, 0, -1)),
    )


def _check_ratios(name: str, ratios: tuple[float, ...]) -> None:
    if 1.0 not in ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise UsageError(
            f"The {name} ratios {list(ratios)} can't be used: take shares above 0 up to 1, and 1 "
            "among them, so that the largest subnet is the model itself."
        )


def default_resolutions(geometry: SamGeometry) -> tuple[int, ...]:
    """1/2, 3/4, 7/8 and 1 of the full side, in whole patches."""
    patches = geometry.image_size // geometry.patch_size
    grids = sorted({max(1, round(patches * ratio)) for ratio in (0.5, 0.75, 0.875, 1.0)})
    return tuple(grid * geometry.patch_size for grid in grids)


def _part_of_width(width: int, ratio: float) -> int:
    """A multiple of 8, but for the whole width."""
    return width if ratio == 1 else min(width, max(8, round(width * ratio / 8) * 8))


def _pick(rng: np.random.Generator, choices: tuple[int, ...]) -> int:
    return choices[int(rng.integers(len(choices)))]


def _at(choices: tuple[int, ...], share: float) -> int:
    return choices[round(share * (len(choices) - 1))]


def _steps(choices: tuple[int, ...], value: int) -> Iterator[int]:
    place = choices.index(value)
    if place > 0:
        yield choices[place - 1]
    if place + 1 < len(choices):
        yield choices[place + 1]


def _with_layers(config: SubnetConfig, layers: dict[int, LayerConfig]) -> SubnetConfig:
    ordered = tuple(layers[index] for index in sorted(layers))
    return SubnetConfig(resolution=config.resolution, layers=ordered)


def _check_ascending(name: str, values: tuple[int, ...]) -> None:
    if list(values) != sorted(set(values)):
        raise ValueError(f"{name} have to ascend without repetition, not {list(values)}")
