"""Under which conditions a benchmark's figures came out."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hwsearch.profiler.conditions import capture_conditions

LIBRARIES = ("scikit-learn", "scipy", "joblib")  # that fits hang on, beside a profile's own


def conditions_with(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - what JSON holds
    """The machine and the versions right now, and what a benchmark has to say of itself.

    Take them before anything is computed: `load_average` is to tell of others.
    """
    found = capture_conditions().model_dump()
    found["versions"] |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    return found | more


def digests_of(files: Iterable[Path]) -> dict[str, str]:
    """The first twelve hexadecimal digits of each file's SHA-256, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in files}
