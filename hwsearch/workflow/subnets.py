"""Which subnet a word of the command line means."""

from __future__ import annotations

from pathlib import Path

from hwsearch.errors import UsageError
from hwsearch.export.manifest import read_manifest
from hwsearch.records import SubnetConfig
from hwsearch.supernet.supernet import Supernet


def named_subnet(supernet: Supernet, name: str) -> SubnetConfig:
    """The subnet that a name means.

    Args:
        supernet: whose subnet it is.
        name: `largest`, `smallest`, a JSON file of a `SubnetConfig`, or a bundle that holds one.

    Raises:
        UsageError: there is nothing of that name, the file is damaged, or its subnet is not in the
            search space.
        ExportError: the bundle can't be read.
    """
    if name == "largest":
        return supernet.space.largest
    if name == "smallest":
        return supernet.space.smallest
    path = Path(name)
    if path.is_dir():
        config = read_manifest(path).subnet
    elif path.is_file():
        config = SubnetConfig.from_json(path.read_bytes())
    else:
        raise UsageError(
            f"There is no subnet {name!r}: say largest, smallest, a JSON file of a SubnetConfig, "
            "or a bundle."
        )
    supernet.space.validate_config(config)
    return config
