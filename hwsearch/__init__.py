"""hwsearch finds the Segment Anything model that fits a device.

Heavy libraries load when a name is first used, so that `import hwsearch` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsearch.errors import HwsearchError as HwsearchError
    from hwsearch.export.load import load_bundle as load_bundle
    from hwsearch.predictor.store import load_latency_predictor as load_latency_predictor
    from hwsearch.records import SubnetConfig as SubnetConfig
    from hwsearch.space import SearchSpace as SearchSpace
    from hwsearch.supernet.store import load_supernet as load_supernet

__version__ = "0.1.0"

_HOMES = {
    "HwsearchError": "hwsearch.errors",
    "SearchSpace": "hwsearch.space",
    "SubnetConfig": "hwsearch.records",
    "load_bundle": "hwsearch.export.load",
    "load_latency_predictor": "hwsearch.predictor.store",
    "load_supernet": "hwsearch.supernet.store",
}
__all__ = [
    "HwsearchError",
    "SearchSpace",
    "SubnetConfig",
    "__version__",
    "load_bundle",
    "load_latency_predictor",
    "load_supernet",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the type depends on the name
    """Import the module that `name` lives in, when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hwsearch' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
