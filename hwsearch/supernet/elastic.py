"""The image encoder that can act as any of its subnets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from segment_anything.modeling import ImageEncoderViT
from torch import Tensor
from torch.func import functional_call

from hwsearch.records import SamGeometry, SubnetConfig
from hwsearch.sam import encoder_arguments
from hwsearch.supernet.slicing import encoder_skeleton, slice_encoder


class ElasticImageEncoder(ImageEncoderViT):  # type: ignore[misc]  # segment_anything is untyped
    """An `ImageEncoderViT` with the same parameters that runs as the subnet that is active.

    Args:
        geometry: sizes of the full encoder.
    """

    def __init__(self, geometry: SamGeometry) -> None:
        super().__init__(**encoder_arguments(geometry))
        self.img_size: int = geometry.image_size
        self.geometry = geometry
        self._config: SubnetConfig | None = None

    @contextmanager
    def active(self, config: SubnetConfig) -> Iterator[None]:
        """Run as `config` within the context; contexts nest."""
        outer, outer_size = self._config, int(self.img_size)
        self._config, self.img_size = config, config.resolution
        try:
            yield
        finally:
            self._config, self.img_size = outer, outer_size

    def forward(self, x: Tensor) -> Tensor:
        """Image embeddings (B×C×G×G) of normalised, padded images (B×3×R×R)."""
        if self._config is None:
            embeddings: Tensor = super().forward(x)
            return embeddings
        skeleton = _cached_skeleton(self.geometry, self._config)
        parameters = slice_encoder(dict(self.named_parameters()), self.geometry, self._config)
        sliced: Tensor = functional_call(skeleton, parameters, (x,))
        return sliced


# functional_call leaves the skeleton as it found it, so one serves every call of a subnet.
_cached_skeleton = lru_cache(maxsize=64)(encoder_skeleton)
