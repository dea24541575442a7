from pathlib import Path

import pytest
from laboratory import CONTEXT

from hwsearch.records import Deployment, LayerConfig, SubnetConfig
from hwsearch.search.accuracy_cache import AccuracyCache


def subnet(resolution: int, precision: str = "fp32") -> Deployment:
    layer = LayerConfig(index=0, mlp_width=8, heads=1)
    return Deployment(
        subnet=SubnetConfig(resolution=resolution, layers=(layer,)), precision=precision
    )


def test_a_second_cache_reads_what_the_first_wrote(tmp_path: Path):
    path = tmp_path / "deep" / "accuracy.jsonl"
    AccuracyCache(path, CONTEXT).put(subnet(64), 0.5)
    other = AccuracyCache(path, CONTEXT)
    assert other.get(subnet(64)) == 0.5
    assert other.get(subnet(128)) is None


def test_lines_of_another_process_are_seen(tmp_path: Path):
    path = tmp_path / "accuracy.jsonl"
    mine, theirs = AccuracyCache(path, CONTEXT), AccuracyCache(path, CONTEXT)
    assert mine.get(subnet(64)) is None
    theirs.put(subnet(64), 0.25)
    assert mine.get(subnet(64)) == 0.25


@pytest.mark.parametrize(
    "change",
    [
        {"supernet_id": "custom-2"},
        {"weights_digest": "ab"},
        {"data_fingerprint": "bc"},
        {"split": "test"},
        {"framing": "image"},
    ],
)
def test_another_context_does_not_share_accuracies(tmp_path: Path, change: dict[str, str]):
    path = tmp_path / "accuracy.jsonl"
    AccuracyCache(path, CONTEXT).put(subnet(64), 0.5)
    assert AccuracyCache(path, CONTEXT.model_copy(update=change)).get(subnet(64)) is None


def test_another_precision_has_an_accuracy_of_its_own(tmp_path: Path):
    cache = AccuracyCache(tmp_path / "accuracy.jsonl", CONTEXT)
    cache.put(subnet(64, "int8"), 0.4)
    assert cache.get(subnet(64)) is None
    assert cache.get(subnet(64, "int8")) == 0.4


def test_accuracies_that_an_older_version_wrote_are_found(tmp_path: Path):
    """The key is the one of the version that knew no deployments."""
    path = tmp_path / "accuracy.jsonl"
    path.write_text(
        '{"key":"c0f93d9d9b9f446e9f18","supernet_id":"custom-1","subnet_id":"s","data":"leaves","miou":0.5}\n'
    )
    assert AccuracyCache(path, CONTEXT).get(subnet(64)) == 0.5


def test_a_torn_line_costs_only_its_own_subnet(tmp_path: Path):
    path = tmp_path / "accuracy.jsonl"
    cache = AccuracyCache(path, CONTEXT)
    cache.put(subnet(64), 0.5)
    cache.put(subnet(96), 0.6)
    path.write_bytes(path.read_bytes()[:-20])
    reopened = AccuracyCache(path, CONTEXT)
    assert reopened.get(subnet(64)) == 0.5
    assert reopened.get(subnet(96)) is None
    reopened.put(subnet(128), 0.7)
    with pytest.warns(UserWarning, match="damaged line"):
        assert reopened.get(subnet(96)) is None
    with pytest.warns(UserWarning, match="damaged line"):
        assert AccuracyCache(path, CONTEXT).get(subnet(128)) == 0.7


def test_remember_asks_once_for_each_subnet(tmp_path: Path):
    asked = []

    def evaluate(config: Deployment) -> float:
        asked.append(config)
        return 0.4

    judge = AccuracyCache(tmp_path / "accuracy.jsonl", CONTEXT).remember(evaluate)
    assert [judge(subnet(64)), judge(subnet(64)), judge(subnet(96))] == [0.4, 0.4, 0.4]
    assert asked == [subnet(64), subnet(96)]
