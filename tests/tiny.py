"""A Segment Anything model small enough to run everything with, and pictures to show it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from segment_anything.modeling import Sam

from hwsearch.data.dataset import Instance, Mask, Pixels, Sample
from hwsearch.records import LayerConfig, SamGeometry, SubnetConfig
from hwsearch.sam import build_sam
from hwsearch.space import SearchSpace, default_space
from hwsearch.supernet.supernet import Supernet

# Windows of 3 do not divide the grids of 8, 7 and 4 patches, so that they get padded.
GEOMETRY = SamGeometry(
    model="custom",
    image_size=128,
    patch_size=16,
    embed_dim=32,
    depth=4,
    heads=4,
    mlp_width=64,
    window_size=3,
    global_layers=(1, 3),
    prompt_dim=32,
    decoder_mlp_width=64,
)


def tiny_space() -> SearchSpace:
    """Everything elastic; layer 0 is fixed, layer 2 is the first to go."""
    return default_space(
        GEOMETRY,
        resolutions=(64, 112, 128),
        width_ratios=(0.25, 0.5, 1.0),
        head_ratios=(0.25, 0.5, 1.0),
        min_depth=2,
        removal_order=(2, 1, 3),
    )


def subnet(
    *,
    resolution: int = 128,
    indices: Sequence[int] = (0, 1, 2, 3),
    mlp_width: int = 64,
    heads: int = 4,
) -> SubnetConfig:
    """A subnet whose layers are all alike, but for layer 0, which has to stay full."""
    return SubnetConfig(
        resolution=resolution,
        layers=tuple(
            LayerConfig(
                index=index,
                mlp_width=mlp_width if index else GEOMETRY.mlp_width,
                heads=heads if index else GEOMETRY.heads,
            )
            for index in indices
        ),
    )


MIXED = SubnetConfig(
    resolution=112,
    layers=(
        LayerConfig(index=0, mlp_width=64, heads=4),
        LayerConfig(index=2, mlp_width=16, heads=2),
        LayerConfig(index=3, mlp_width=32, heads=1),
    ),
)
# One subnet for each elastic dimension alone, and some that mix them.
SUBNETS = {
    "largest": subnet(),
    "without-a-windowed-layer": subnet(indices=(0, 1, 3)),
    "without-a-global-layer": subnet(indices=(0, 2, 3)),
    "width": subnet(mlp_width=16),
    "heads": subnet(heads=2),
    "one-head": subnet(heads=1),
    "resolution": subnet(resolution=64),
    "odd-resolution": subnet(resolution=112),
    "mixed": MIXED,
    "smallest": subnet(resolution=64, indices=(0, 3), mlp_width=16, heads=1),
}


def randomised_sam(seed: int, geometry: SamGeometry = GEOMETRY) -> Sam:
    """A SAM with every parameter drawn from a normal distribution.

    Norms, biases, positions and relative positions included: their defaults of one and zero would
    hide that they were mixed up.
    """
    sam = build_sam(geometry)
    rng = torch.Generator().manual_seed(seed)
    for tensor in sam.state_dict().values():
        tensor.normal_(0, 0.3, generator=rng)
    return sam


def tiny_supernet(seed: int = 0) -> Supernet:
    """A supernet around `randomised_sam`."""
    return Supernet(randomised_sam(seed), GEOMETRY, tiny_space())


def random_images(resolution: int, *, count: int = 2, seed: int = 0) -> torch.Tensor:
    """Normalised input B×3×R×R."""
    return torch.randn(
        count, 3, resolution, resolution, generator=torch.Generator().manual_seed(seed)
    )


@dataclass
class Pictures:
    """A data set that is given its samples."""

    samples: list[Sample]
    name: str = "pictures"
    split: str = "train"
    fingerprint: str = "0"
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        return self.samples[index]

    def key(self, index: int) -> str:
        return self.samples[index].key


def picture(
    masks: Sequence[Mask], *, key: str = "0", ground: int = 0, objects: int = 255
) -> Sample:
    """An image whose brightness tells object from ground, so that masks can be checked on it."""
    image: Pixels = np.full((*masks[0].shape, 3), ground, np.uint8)
    for mask in masks:
        image[mask] = objects
    return Sample(key=key, image=image, instances=tuple(Instance.from_mask(m) for m in masks))


def rectangle(shape: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> Mask:
    """A filled box along pixel edges."""
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def corner_piece(shape: tuple[int, int], x0: int, y0: int, side: int) -> Mask:
    """A square without its lower right quarter: no flip leaves it as it is."""
    mask = rectangle(shape, x0, y0, x0 + side, y0 + side)
    mask[y0 + side // 2 : y0 + side, x0 + side // 2 : x0 + side] = False
    return mask
