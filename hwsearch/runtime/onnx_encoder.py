"""The image encoder of a Segment Anything model as an ONNX graph.

Written node by node from the layer equations of
`segment_anything.modeling.image_encoder.ImageEncoderViT`; the parity gate holds it against that
module. Height and width are fixed and the batch is free, so no shape is computed at run time.

Shape legend: B images, G patches a side, D embedding, W windows of all images, S patches a side of
a window (S = G and W = B in a global block), N = S² tokens, H heads, d head width.
"""

from __future__ import annotations

from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos

from hwsearch.errors import ExportError
from hwsearch.runtime.onnx_graph import GraphWriter


def write_encoder(graph: GraphWriter, encoder: ImageEncoderViT) -> None:
    """Add the encoder: `image` (B×3×R×R) in, `image_embeddings` (B×C×G×G) out.

    Raises:
        ExportError: the encoder has no positions, or not those of its input resolution.
    """
    grid = _grid(encoder)
    patch = encoder.patch_embed.proj
    side = encoder.img_size
    image = graph.input("image", ["batch", patch.in_channels, side, side])
    with graph.scope("patch_embed"):
        value = graph.node(
            "Conv",
            image,
            graph.weight("weight", patch.weight),
            graph.weight("bias", patch.bias),
            attributes={"kernel_shape": patch.kernel_size, "strides": patch.stride},
        )
        value = graph.transpose(value, 0, 2, 3, 1)
        value = graph.node("Add", value, graph.weight("pos_embed", encoder.pos_embed))
    for index, block in enumerate(encoder.blocks):
        with graph.scope(f"blocks.{index}"):
            value = _write_block(graph, value, block, grid)
    with graph.scope("neck"):
        value = _write_neck(graph, value, encoder)
    channels = encoder.neck[0].out_channels
    graph.output("image_embeddings", value, ["batch", channels, grid, grid])


def _grid(encoder: ImageEncoderViT) -> int:
    grid: int = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
    if encoder.pos_embed is None or encoder.pos_embed.shape[1:3] != (grid, grid):
        raise ExportError(
            f"This encoder takes {encoder.img_size} pixels but its position table is not "
            f"{grid} by {grid}: extract the subnet at its own resolution first."
        )
    return grid


def _write_block(graph: GraphWriter, value: str, block: Block, grid: int) -> str:
    """B×G×G×D to B×G×G×D."""
    side = block.window_size or grid
    dim = block.norm1.normalized_shape[0]
    normed = graph.layer_norm(
        "norm1",
        value,
        weight=block.norm1.weight,
        bias=block.norm1.bias,
        epsilon=block.norm1.eps,
    )
    tokens = _partition(graph, normed, grid=grid, side=side, dim=dim)
    with graph.scope("attn"):
        tokens = _write_attention(graph, tokens, block.attn, side)
    attended = _unpartition(graph, tokens, grid=grid, side=side, dim=dim)
    value = graph.node("Add", value, attended)
    hidden = graph.layer_norm(
        "norm2",
        value,
        weight=block.norm2.weight,
        bias=block.norm2.bias,
        epsilon=block.norm2.eps,
    )
    with graph.scope("mlp"):
        hidden = graph.linear("lin1", hidden, block.mlp.lin1)
        hidden = graph.activation(hidden, block.mlp.act)
        hidden = graph.linear("lin2", hidden, block.mlp.lin2)
    return graph.node("Add", value, hidden)


def _partition(graph: GraphWriter, value: str, *, grid: int, side: int, dim: int) -> str:
    """B×G×G×D to W×N×D, with zeros at the bottom and the right where windows overlap the edge."""
    if side == grid:
        return graph.reshape(value, -1, side * side, dim)
    windows = -(-grid // side)
    missing = windows * side - grid
    with graph.scope("partition"):
        if missing:
            pads = graph.integers(0, 0, 0, 0, 0, missing, missing, 0)
            value = graph.node("Pad", value, pads)
        value = graph.reshape(value, -1, windows, side, windows, side, dim)
        value = graph.transpose(value, 0, 1, 3, 2, 4, 5)
        return graph.reshape(value, -1, side * side, dim)


def _unpartition(graph: GraphWriter, value: str, *, grid: int, side: int, dim: int) -> str:
    """W×N×D to B×G×G×D: undoes `_partition`."""
    if side == grid:
        return graph.reshape(value, -1, grid, grid, dim)
    windows = -(-grid // side)
    with graph.scope("unpartition"):
        value = graph.reshape(value, -1, windows, windows, side, side, dim)
        value = graph.transpose(value, 0, 1, 3, 2, 4, 5)
        value = graph.reshape(value, -1, windows * side, windows * side, dim)
        if windows * side == grid:
            return value
        starts, ends, axes = (graph.integers(*pair) for pair in ((0, 0), (grid, grid), (1, 2)))
        return graph.node("Slice", value, starts, ends, axes)


def _write_attention(graph: GraphWriter, tokens: str, attention: Attention, side: int) -> str:
    """W×N×D to W×N×D, with decomposed relative positions added to the attention map."""
    heads, count = attention.num_heads, side * side
    head_dim = attention.qkv.out_features // (3 * heads)
    packed = graph.linear("qkv", tokens, attention.qkv)
    queries, keys, values = graph.split_node(
        "Split", packed, outputs=3, attributes={"axis": -1, "num_outputs": 3}
    )
    queries = graph.transpose(graph.reshape(queries, -1, count, heads, head_dim), 0, 2, 1, 3)
    keys = graph.transpose(graph.reshape(keys, -1, count, heads, head_dim), 0, 2, 3, 1)
    values = graph.transpose(graph.reshape(values, -1, count, heads, head_dim), 0, 2, 1, 3)

    scaled = graph.node(
        "Mul", queries, graph.weight("scale", attention.qkv.weight.new_tensor(attention.scale))
    )
    scores = graph.node("MatMul", scaled, keys)
    if attention.use_rel_pos:
        with graph.scope("rel_pos"):
            scores = _add_relative_positions(graph, scores, queries, attention, side)
    weights = graph.node("Softmax", scores, attributes={"axis": -1})
    mixed = graph.transpose(graph.node("MatMul", weights, values), 0, 2, 1, 3)
    mixed = graph.reshape(mixed, -1, count, heads * head_dim)
    return graph.linear("proj", mixed, attention.proj)


def _add_relative_positions(
    graph: GraphWriter, scores: str, queries: str, attention: Attention, side: int
) -> str:
    """W×H×N×N scores plus one term for the row and one for the column of each key.

    Queries go place first (S×WHS×d), so that each place's table meets all windows and heads in
    one matrix product; broadcasting the tables would make W·H·S small products of it.
    """
    heads = attention.num_heads
    head_dim = attention.qkv.out_features // (3 * heads)
    # S×S×d by the places of query and key; as one d×S matrix for each place of the query.
    row_table = get_rel_pos(side, side, attention.rel_pos_h).transpose(1, 2)
    column_table = get_rel_pos(side, side, attention.rel_pos_w).transpose(1, 2)
    squares = graph.reshape(queries, -1, side, side, head_dim)  # WH×S×S×d

    by_row = graph.reshape(graph.transpose(squares, 1, 0, 2, 3), side, -1, head_dim)
    row_terms = graph.node("MatMul", by_row, graph.weight("rows", row_table))
    row_terms = graph.transpose(graph.reshape(row_terms, side, -1, side, side), 1, 0, 2, 3)
    by_column = graph.reshape(graph.transpose(squares, 2, 0, 1, 3), side, -1, head_dim)
    column_terms = graph.node("MatMul", by_column, graph.weight("columns", column_table))
    column_terms = graph.transpose(graph.reshape(column_terms, side, -1, side, side), 1, 2, 0, 3)

    scores = graph.reshape(scores, -1, side, side, side, side)
    scores = graph.node("Add", scores, graph.reshape(row_terms, -1, side, side, side, 1))
    scores = graph.node("Add", scores, graph.reshape(column_terms, -1, side, side, 1, side))
    return graph.reshape(scores, -1, heads, side * side, side * side)


def _write_neck(graph: GraphWriter, value: str, encoder: ImageEncoderViT) -> str:
    """B×G×G×D to B×C×G×G. LayerNorm2d normalises channels: LayerNormalization, channels last."""
    pointwise, norm1, spatial, norm2 = encoder.neck
    kernel = pointwise.weight.flatten(1).T  # a 1×1 convolution is a matrix product, channels last
    value = graph.node("MatMul", value, graph.weight("0.weight", kernel))
    value = graph.layer_norm("1", value, weight=norm1.weight, bias=norm1.bias, epsilon=norm1.eps)
    value = graph.node(
        "Conv",
        graph.transpose(value, 0, 3, 1, 2),
        graph.weight("2.weight", spatial.weight),
        attributes={
            "kernel_shape": spatial.kernel_size,
            "pads": (*spatial.padding, *spatial.padding),
        },
    )
    value = graph.transpose(value, 0, 2, 3, 1)
    value = graph.layer_norm("3", value, weight=norm2.weight, bias=norm2.bias, epsilon=norm2.eps)
    return graph.transpose(value, 0, 3, 1, 2)
