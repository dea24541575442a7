"""What is loaded when: heavy libraries wait until somebody needs them."""

import subprocess
import sys

import pytest

import hwsearch

HEAVY = ("torch", "torchvision", "optuna", "sklearn", "skimage", "scipy", "onnx", "onnxruntime")
HEAVY += ("openvino", "plotly", "pycocotools", "segment_anything", "PIL")


def loaded_by(statement: str) -> set[str]:
    """Top-level modules and modules of hwsearch that a fresh interpreter has after a statement."""
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_import_hwsearch_is_light():
    loaded = loaded_by("import hwsearch")
    assert "hwsearch" in loaded
    assert not loaded & {*HEAVY, "numpy", "pydantic"}


def test_records_need_no_heavy_library():
    loaded = loaded_by("import hwsearch; hwsearch.SubnetConfig; hwsearch.SearchSpace")
    assert {"hwsearch.records", "hwsearch.space"} <= loaded
    assert not loaded & set(HEAVY)


def test_the_command_line_starts_without_heavy_libraries():
    assert not loaded_by("import hwsearch.cli.main") & set(HEAVY)


def test_neither_predictor_nor_search_loads_torch():
    loaded = loaded_by("import hwsearch.search.run, hwsearch.predictor.store")
    assert {"optuna", "sklearn"} <= loaded
    assert not loaded & {"torch", "hwsearch.supernet", "hwsearch.runtime", "hwsearch.sam"}


@pytest.mark.parametrize("name", hwsearch.__all__)
def test_every_public_name_is_there_and_documented(name: str):
    found = getattr(hwsearch, name)
    if not isinstance(found, str):
        assert found.__name__ == name
        assert (found.__doc__ or "").strip()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hwsearch.nothing  # noqa: B018 - looked up, not used
