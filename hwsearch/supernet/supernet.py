"""A Segment Anything model that contains all its subnets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from segment_anything.modeling import Sam

from hwsearch.errors import UsageError
from hwsearch.records import LayerImportance, SamGeometry, SubnetConfig
from hwsearch.sam import build_sam, set_resolution
from hwsearch.space import SearchSpace
from hwsearch.supernet.elastic import ElasticImageEncoder
from hwsearch.supernet.slicing import encoder_skeleton, slice_encoder


class Supernet:
    """A SAM whose image encoder is elastic in depth, MLP width, heads and resolution.

    Args:
        sam: the model whose weights are taken over; it is not changed.
        geometry: its sizes.
        space: the subnets that may be asked for.
        importance: what is known of each removable layer.

    Raises:
        UsageError: the space and the geometry disagree.
    """

    def __init__(
        self,
        sam: Sam,
        geometry: SamGeometry,
        space: SearchSpace,
        importance: tuple[LayerImportance, ...] = (),
    ) -> None:
        _check_space(geometry, space)
        self.geometry = geometry
        self.space = space
        self.importance = importance
        self.sam = build_sam(geometry)
        self.sam.image_encoder = ElasticImageEncoder(geometry)
        self.sam.load_state_dict(sam.state_dict())
        self.sam.eval()

    @property
    def id(self) -> str:
        """Identifies the geometry; latency profiles belong to it, whatever the weights."""
        return self.geometry.id

    def weights_digest(self) -> str:
        """Sixteen hexadecimal digits over all weights; accuracies belong to it."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.sam.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def removal_probabilities(self) -> dict[int, float]:
        """Layer index → probability that a random subnet of a training step leaves it out."""
        return {layer.index: layer.removal_probability for layer in self.importance}

    @contextmanager
    def active(self, config: SubnetConfig) -> Iterator[Sam]:
        """Make `self.sam` act as a subnet within the context; gradients reach the full weights.

        Raises:
            UsageError: the subnet is not in the search space.
        """
        self.space.validate_config(config)
        prompt_encoder = self.sam.prompt_encoder
        outer = prompt_encoder.input_image_size[0]
        try:
            set_resolution(self.sam, config.resolution, self.geometry.patch_size)
            with self.sam.image_encoder.active(config):
                yield self.sam
        finally:
            set_resolution(self.sam, outer, self.geometry.patch_size)

    def extract(self, config: SubnetConfig) -> Sam:
        """A plain segment_anything `Sam` with copies of a subnet's weights, and nothing more.

        Raises:
            UsageError: the subnet is not in the search space.
        """
        self.space.validate_config(config)
        return self.extract_any(config)

    def extract_any(self, config: SubnetConfig) -> Sam:
        """As `extract`, for any choice of layers, also one that the search space leaves out."""
        with torch.no_grad():
            parameters = {
                name: tensor.clone()
                for name, tensor in slice_encoder(
                    dict(self.sam.image_encoder.named_parameters()), self.geometry, config
                ).items()
            }
        return assemble_subnet(self.sam, self.geometry, config, parameters)


def assemble_subnet(
    sam: Sam,
    geometry: SamGeometry,
    config: SubnetConfig,
    encoder_parameters: dict[str, torch.Tensor],
) -> Sam:
    """A plain `Sam` of a subnet's shape, prompt encoder and mask decoder copied from `sam`."""
    subnet = build_sam(geometry.model_copy(update={"depth": 1, "global_layers": ()}))
    subnet.image_encoder = encoder_skeleton(geometry, config)
    subnet.image_encoder.load_state_dict(encoder_parameters, assign=True)
    subnet.prompt_encoder.load_state_dict(sam.prompt_encoder.state_dict())
    subnet.mask_decoder.load_state_dict(sam.mask_decoder.state_dict())
    set_resolution(subnet, config.resolution, geometry.patch_size)
    return subnet.to(next(sam.parameters()).device).eval()


def _check_space(geometry: SamGeometry, space: SearchSpace) -> None:
    largest = space.largest
    if len(space.layers) != geometry.depth:
        raise UsageError(
            f"The search space has {len(space.layers)} layers, the model {geometry.depth}."
        )
    if largest.resolution > geometry.image_size:
        raise UsageError(
            f"The search space asks for {largest.resolution} px, more than the model's "
            f"{geometry.image_size} px."
        )
    for layer in largest.layers:
        if layer.mlp_width > geometry.mlp_width or layer.heads > geometry.heads:
            raise UsageError(
                f"The search space asks layer {layer.index} for {layer.mlp_width} MLP neurons and "
                f"{layer.heads} heads; the model has {geometry.mlp_width} and {geometry.heads}."
            )
    for resolution in space.resolutions:
        if resolution % geometry.patch_size:
            raise UsageError(
                f"Resolution {resolution} is no multiple of the patch size {geometry.patch_size}."
            )
