"""How the targets of a search are named on the command line."""

import pytest

from hwsearch.cli.main import run
from hwsearch.cli.options import TargetWords, parse_target
from hwsearch.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu=40ms", TargetWords("cpu", 40.0)),
        ("cpu:threads=1=1.5s", TargetWords("cpu", 1500.0, threads=1)),
        (
            "cpu:runtime=openvino,precision=bf16,threads=2=60",
            TargetWords("cpu", 60.0, runtime="openvino", precision="bf16", threads=2),
        ),
        ("cuda=8ms", TargetWords("cuda", 8.0)),
        ("cuda:1=8ms", TargetWords("cuda:1", 8.0)),
        ("cuda:1:precision=fp16=8ms", TargetWords("cuda:1", 8.0, precision="fp16")),
        (
            "cpu-amd-epyc-onnxruntime-fp32-t1-b1=60ms",
            TargetWords("cpu-amd-epyc-onnxruntime-fp32-t1-b1", 60.0, is_device=False),
        ),
    ],
)
def test_the_grammar_of_a_target(text: str, expected: TargetWords):
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("40ms", "DEVICE=LATENCY"),
        ("=40ms", "DEVICE=LATENCY"),
        ("tpu:threads=1=40ms", "DEVICE=LATENCY"),
        ("cpu=soon", "no latency"),
        ("cpu:cores=1=40ms", "'cores=1'"),
        ("cpu:threads=1,threads=2=40ms", "'threads=2'"),
        ("cpu:threads==40ms", "'threads='"),
        ("cpu:threads=two=40ms", "'two' threads"),
    ],
)
def test_a_target_that_can_not_be_read(text: str, said: str):
    with pytest.raises(UsageError, match=said):
        parse_target(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "cpu=4ms", "--target-latency", "4ms"], "give either it or --target"),
        (["--target", "cpu=4ms", "--threads", "1"], "belong to --target-latency"),
        (["--target", "cpu:precision=int8=4ms", "--precision", "fp32"], "names its precision"),
        (["--target", "cpu=4ms", "--target", "cpu=5ms"], "given twice"),
        (["--target", "attic=4ms"], "no target 'attic'"),
        (["--target", "cpu=4ms", "--precision", "fp8"], "no precision 'fp8'"),
        (["--target", "cpu=4ms", "--precision", "fp16"], "fp32 or int8"),
    ],
)
def test_targets_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], tmp_path, arguments: list[str], said: str
):
    code = run(["search", *arguments, "--data", "scenes", "--workspace", str(tmp_path)])
    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert said in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []
