"""The plain way of profiling, and the process that disturbs."""

import multiprocessing
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from tiny import tiny_supernet

from hwsearch.runtime.devices import resolve_target
from profiling_study import plain
from profiling_study.disturbance import disturbed


def test_the_disturbance_ends_with_its_context():
    with disturbed():
        (process,) = multiprocessing.active_children()
        assert process.is_alive()
    assert process.exitcode is not None
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("export", [plain.trace_encoder, plain.write_encoder])
def test_the_plain_way_times_the_subnet_itself(
    export: plain.Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plain, "RUNS", 5)
    net = tiny_supernet()
    config = net.space.smallest
    encoder = tmp_path / "exported.onnx"
    target = resolve_target(device="cpu", threads=1)
    export(net, config, target, encoder)
    image = torch.randn(1, 3, config.resolution, config.resolution)
    (exported,) = ort.InferenceSession(encoder).run(None, {"image": image.numpy()})
    expected = net.extract(config).image_encoder(image)
    torch.testing.assert_close(torch.from_numpy(exported), expected, atol=1e-4, rtol=1e-3)
    (timing,) = plain.time_plainly(net, [config], target, tmp_path, export=export)
    assert timing.latency_ms > 0
    assert timing.export_s > 0
    assert timing.relative_half_width >= 0
