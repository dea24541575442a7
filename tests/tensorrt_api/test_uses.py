"""Every attribute of TensorRT that the package uses is in all versions it is meant for."""

import re
from pathlib import Path

import pytest
from tables import VERSIONS, Use, faults
from uses import OBJECTS, find_uses

PACKAGE = Path(__file__).parents[2] / "hwsearch"
# Used only where a version offers it, which the code asks first.
GUARDED = {
    "ComputeCapability": "only TensorRT-RTX builds for other GPUs than the machine's",
    "IBuilderConfig.num_compute_capabilities": "as ComputeCapability",
    "IBuilderConfig.set_compute_capability": "as ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy": "only TensorRT-RTX compiles while it runs",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy": "as its values",
}


def sources() -> dict[str, str]:
    """The modules that hold TensorRT's module as `trt`, or are named after it, by path."""
    texts = {str(p.relative_to(PACKAGE)): p.read_text() for p in PACKAGE.rglob("*.py")}
    return {
        path: text
        for path, text in texts.items()
        if Path(path).name.startswith("tensorrt") or re.search(r"trt: Any|trt\.module", text)
    }


SOURCES = sources()
USES = {path: find_uses(text) for path, text in SOURCES.items()}
ALL = set().union(*USES.values())


@pytest.mark.parametrize("path", SOURCES)
def test_every_version_has_what_a_module_uses(path: str):
    assert faults(USES[path], GUARDED) == []


def test_the_reader_sees_the_whole_way_of_an_engine():
    seen = {str(use) for use in ALL}
    for use in (
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse_from_file",
        "ParserError.node_name",
        "ITensor.shape",
        "IOptimizationProfile.set_shape",
        "IBuilderConfig.set_memory_pool_limit",
        "IProgressMonitor.step_complete",
        "ILogger.log",
        "Builder.build_serialized_network",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.get_tensor_dtype",
        "ICudaEngine.get_tensor_profile_shape",
        "ICudaEngine.create_execution_context",
        "TensorIOMode.INPUT",
        "DataType.name",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.set_tensor_address",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.profiler",
        "IProfiler.report_layer_time",
    ):
        assert use in seen


def test_guards_are_needed():
    for guarded in GUARDED:
        owner, _, member = guarded.partition(".")
        assert faults({Use(owner, member)}, {}), f"{guarded} is in all versions: no guard is needed"
        assert any(guarded in (str(use), use.owner) for use in ALL), f"{guarded} is not used"


MUTATIONS = [
    # One that no version has, one each that came or went with a version, and one for its arguments.
    ("build_serialized_network(", "build_serialised_network(", "10.13.3, 10.16.1, 11.4.0, rtx"),
    ("build_serialized_network(", "build_engine_with_config(", "rtx"),
    ("STRONGLY_TYPED", "EXPLICIT_BATCH", "11.4.0, rtx"),
    ("create_builder_config()", "platform_has_fast_fp16", "11.4.0, rtx"),
    ("parser.num_errors", "parser.set_builder_config", "10.13.3"),
    ("execute_async_v3", "execute_async_v2", "10.13.3, 10.16.1, 11.4.0, rtx"),
    ("engine.create_runtime_config()", "engine.has_implicit_batch_dimension", "11.4.0, rtx"),
    ("engine.is_shape_inference_io", "engine.get_aliased_input_tensor", "10.13.3"),
    ("context.profiler", "context.is_stream_capturable", "10.13.3, 10.16.1, 11.4.0"),
    ("self._stream.cuda_stream)", "self._stream.cuda_stream, 1)", "these arguments"),
    ("trt.MemoryPoolType.WORKSPACE, ", "", "arguments in 10.13.3"),
    ("def step_complete(self, phase_name: str, step: int)", "def step_complete(self)", "arguments"),
]


@pytest.mark.parametrize(
    ("old", "new", "fault"), MUTATIONS, ids=[f"{old} → {new}" for old, new, _ in MUTATIONS]
)
def test_a_renamed_attribute_fails(old: str, new: str, fault: str):
    text = next(text for text in SOURCES.values() if old in text)
    found = faults(find_uses(text.replace(old, new)), GUARDED)
    assert any(fault in sentence for sentence in found), found


@pytest.mark.parametrize("source", ["def f(thing: Any): ...", "def thing() -> Any: ..."])
def test_what_is_of_unknown_kind_is_refused(source: str):
    with pytest.raises(ValueError, match="'thing'"):
        find_uses(source)


@pytest.mark.parametrize(
    ("body", "use"),
    [
        ("trt.Builder(logger).create_network(0).num_layers", "INetworkDefinition.num_layers"),
        ("[n for n in [parser.get_error(0)] if n.file()]", "ParserError.file"),
        ("x = parser.get_error(0)\n    x.line()", "ParserError.line"),
        ("self._network.get_layer(0).name", "ILayer.name"),
        ("getattr(config, 'build_route')", "IBuilderConfig.build_route"),
        ("config.flags = 1", "IBuilderConfig.flags"),
    ],
)
def test_types_are_followed(body: str, use: str):
    source = f"def f(self, trt: Any, logger: Any, parser: Any, config: Any):\n    {body}"
    assert use in {str(found) for found in find_uses(source)}


def test_names_of_other_things_are_left_alone():
    assert find_uses("def f(config: SubnetConfig):\n    return config.layers") == set()
    assert find_uses("def f(trt: TensorRT):\n    return trt.flavour") == set()


def test_the_tables_are_of_the_versions_that_are_promised():
    assert [version.rpartition(".")[0] for version in VERSIONS] == ["10.13", "10.16", "11.4", ""]
    assert "module" in OBJECTS.values()
