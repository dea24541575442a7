"""A small subnet and its bundle, shared by the tests that only read it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from segment_anything.modeling import Sam
from tiny import GEOMETRY, MIXED, tiny_supernet

from hwsearch.export.bundle import write_bundle
from hwsearch.export.parity import drawn_images

# With these weights every mask of the prompts in the tests has an inside and an outside.
SEED = 2


@dataclass(frozen=True)
class Exported:
    """The model, and the directory of its bundle."""

    sam: Sam
    path: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory):
    sam = tiny_supernet(seed=SEED).extract(MIXED)
    path = tmp_path_factory.mktemp("exported") / "bundle"
    return Exported(sam, write_bundle(path, sam=sam, geometry=GEOMETRY, subnet=MIXED))


@pytest.fixture
def sam():
    """A fresh subnet, to be changed at will."""
    return tiny_supernet(seed=SEED).extract(MIXED)


@pytest.fixture(scope="session")
def images() -> list[np.ndarray]:
    """One wide and one tall image."""
    return drawn_images(seed=3)
