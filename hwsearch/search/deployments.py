"""The space that a search draws from: the subnets of a search space, each in some precisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import Field, field_validator

from hwsearch.errors import UsageError
from hwsearch.records import Deployment, Precision, Record, SubnetConfig
from hwsearch.space import SearchSpace

EXACTNESS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8")


class DeploymentSpace(Record):
    """Every subnet of a search space in every one of the precisions.

    `precisions` are kept in the order of `EXACTNESS`, whatever the order they are given in.
    """

    subnets: SearchSpace
    precisions: tuple[Precision, ...] = Field(default=("fp32",), min_length=1)

    @field_validator("precisions")
    @classmethod
    def _each_once(cls, precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if len(set(precisions)) < len(precisions):
            raise ValueError(f"precisions {list(precisions)} may name each only once")
        return tuple(sorted(precisions, key=EXACTNESS.index))

    @property
    def largest(self) -> Deployment:
        """The largest subnet in the most exact precision."""
        return Deployment(subnet=self.subnets.largest, precision=self.precisions[0])

    @property
    def smallest(self) -> Deployment:
        """The smallest subnet in the least exact precision."""
        return Deployment(subnet=self.subnets.smallest, precision=self.precisions[-1])

    @property
    def size(self) -> int:
        """How many deployments there are."""
        return self.subnets.size * len(self.precisions)

    def contains(self, deployment: Deployment) -> bool:
        """Whether both the subnet and its precision belong to this space."""
        return deployment.precision in self.precisions and self.subnets.contains(deployment.subnet)

    def validate_deployment(self, deployment: Deployment) -> None:
        """Do nothing if `deployment` belongs to this space.

        Raises:
            UsageError: it does not; the message names the first choice that is not allowed.
        """
        self.subnets.validate_config(deployment.subnet)
        if deployment.precision not in self.precisions:
            raise UsageError(
                f"Precision {deployment.precision} is not in the search space: "
                f"take {', '.join(self.precisions)}."
            )

    def sample(self, rng: np.random.Generator) -> Deployment:
        """Draw a subnet as `SearchSpace.sample` does, and a precision."""
        subnet = self.subnets.sample(rng)
        if len(self.precisions) == 1:
            return Deployment(subnet=subnet, precision=self.precisions[0])
        drawn = self.precisions[int(rng.integers(len(self.precisions)))]
        return Deployment(subnet=subnet, precision=drawn)

    def neighbours(self, deployment: Deployment) -> Iterator[Deployment]:
        """The subnet's neighbours in the same precision, then the subnet in every other one.

        Raises:
            UsageError: `deployment` is not in this space.
        """
        self.validate_deployment(deployment)
        for subnet in self.subnets.neighbours(deployment.subnet):
            yield Deployment(subnet=subnet, precision=deployment.precision)
        for precision in self.precisions:
            if precision != deployment.precision:
                yield Deployment(subnet=deployment.subnet, precision=precision)

    def in_each_precision(self, subnets: Iterable[SubnetConfig]) -> list[Deployment]:
        """Every subnet in every precision."""
        return [
            Deployment(subnet=subnet, precision=precision)
            for subnet in subnets
            for precision in self.precisions
        ]
