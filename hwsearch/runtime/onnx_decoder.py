"""The prompt encoder and mask decoder of a Segment Anything model as one ONNX graph.

Written node by node from `segment_anything.modeling.{prompt_encoder,mask_decoder,transformer}`; the
parity gate holds it against those modules. The positional encoding of the image and the
embedding of "no mask" are constants. Nothing is repeated for each prompt: the image tokens keep
a batch of 1 until the prompts first change them, so the largest projections of the first layer
are computed once for all prompts.

Shape legend: P prompts, N points of a prompt, C embedding, G patches a side, I = G² image tokens,
M mask tokens, T = 1 + M + N output and prompt tokens, H heads.
"""

from __future__ import annotations

import math

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn

from hwsearch.runtime.onnx_graph import GraphWriter


def write_decoder(graph: GraphWriter, sam: Sam) -> None:
    """Add the decoder, with free P and N.

    In: `image_embeddings` (1×C×G×G), `point_coords` (P×N×2, (x, y) in pixels of the input frame),
    `point_labels` (P×N: 1 object, 0 background, 2 and 3 box corners, -1 none).
    Out: `low_res_masks` (P×M×4G×4G, logits), `iou_predictions` (P×M).
    """
    decoder, prompt_encoder = sam.mask_decoder, sam.prompt_encoder
    channels, grid = prompt_encoder.embed_dim, prompt_encoder.image_embedding_size[0]
    masks = decoder.num_mask_tokens
    embeddings = graph.input("image_embeddings", [1, channels, grid, grid])
    points = graph.input("point_coords", ["prompts", "points", 2])
    labels = graph.input("point_labels", ["prompts", "points"])

    with graph.scope("prompt_encoder"):
        sparse = _write_points(graph, points, labels, prompt_encoder)
        dense = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        image = graph.node("Add", embeddings, graph.weight("no_mask_embed", dense))
    with graph.scope("mask_decoder"):
        tokens = _write_tokens(graph, labels, sparse, decoder)
        image = graph.transpose(graph.reshape(image, 1, channels, -1), 0, 2, 1)
        positions = prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
        tokens, image = _write_transformer(graph, tokens, image, positions, decoder.transformer)
        low_res, ious = _write_heads(graph, tokens, image, decoder, grid)
    graph.output("low_res_masks", low_res, ["prompts", masks, 4 * grid, 4 * grid])
    graph.output("iou_predictions", ious, ["prompts", masks])


def _write_points(graph: GraphWriter, points: str, labels: str, encoder: PromptEncoder) -> str:
    """P×N×2 points and P×N labels to P×N×C sparse embeddings."""
    height, width = encoder.input_image_size
    size = torch.tensor([width, height], dtype=torch.float32)
    # Pixel centres to -1 … 1, as PromptEncoder._embed_points and PositionEmbeddingRandom do it.
    scaled = graph.node("Mul", points, graph.weight("scale", 2 / size))
    centred = graph.node("Add", scaled, graph.weight("shift", 1 / size - 1))
    frequencies = 2 * math.pi * encoder.pe_layer.positional_encoding_gaussian_matrix
    angles = graph.node("MatMul", centred, graph.weight("frequencies", frequencies))
    waves = [graph.node("Sin", angles), graph.node("Cos", angles)]
    encoded = graph.node("Concat", *waves, attributes={"axis": -1})

    label = graph.node("Unsqueeze", labels, graph.integers(-1))
    none = graph.node("Equal", label, graph.weight("no_label", torch.tensor([-1.0])))
    padding = graph.weight("not_a_point_embed", encoder.not_a_point_embed.weight)
    encoded = graph.node("Where", none, padding, encoded)
    known = torch.arange(encoder.num_point_embeddings, dtype=torch.float32)
    matches = graph.node("Equal", label, graph.weight("labels", known))
    one_hot = graph.node("Cast", matches, attributes={"to": 1})
    table = torch.cat([embedding.weight for embedding in encoder.point_embeddings])
    learned = graph.node("MatMul", one_hot, graph.weight("point_embeddings", table))
    return graph.node("Add", encoded, learned)


def _write_tokens(graph: GraphWriter, labels: str, sparse: str, decoder: MaskDecoder) -> str:
    """The IoU token, the mask tokens and P×N×C prompt tokens as P×T×C."""
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    prompts = graph.node("Shape", labels, attributes={"start": 0, "end": 1})
    shape = graph.node("Concat", prompts, graph.integers(1, 1), attributes={"axis": 0})
    repeated = graph.node("Expand", graph.weight("output_tokens", output[None]), shape)
    return graph.node("Concat", repeated, sparse, attributes={"axis": 1})


def _write_transformer(
    graph: GraphWriter, tokens: str, image: str, positions: Tensor, transformer: TwoWayTransformer
) -> tuple[str, str]:
    """P×T×C tokens and 1×I×C image to P×T×C and P×I×C."""
    place = graph.weight("image_pe", positions)
    queries = tokens
    for index, layer in enumerate(transformer.layers):
        with graph.scope(f"transformer.layers.{index}"):
            queries, image = _write_two_way(
                graph, queries=queries, image=image, tokens=tokens, place=place, layer=layer
            )
    with graph.scope("transformer"):
        final = _write_attention(
            graph,
            "final_attn_token_to_image",
            transformer.final_attn_token_to_image,
            queries=graph.node("Add", queries, tokens),
            keys=graph.node("Add", image, place),
            values=image,
        )
        queries = _add_norm(graph, "norm_final_attn", queries, final, transformer.norm_final_attn)
    return queries, image


def _write_two_way(
    graph: GraphWriter,
    *,
    queries: str,
    image: str,
    tokens: str,
    place: str,
    layer: TwoWayAttentionBlock,
) -> tuple[str, str]:
    """One layer: tokens among themselves, tokens to image, MLP, image to tokens."""
    if layer.skip_first_layer_pe:
        attended = _write_attention(
            graph, "self_attn", layer.self_attn, queries=queries, keys=queries, values=queries
        )
        queries = _norm(graph, "norm1", attended, layer.norm1)
    else:
        placed = graph.node("Add", queries, tokens)
        attended = _write_attention(
            graph, "self_attn", layer.self_attn, queries=placed, keys=placed, values=queries
        )
        queries = _add_norm(graph, "norm1", queries, attended, layer.norm1)

    placed_image = graph.node("Add", image, place)
    attended = _write_attention(
        graph,
        "cross_attn_token_to_image",
        layer.cross_attn_token_to_image,
        queries=graph.node("Add", queries, tokens),
        keys=placed_image,
        values=image,
    )
    queries = _add_norm(graph, "norm2", queries, attended, layer.norm2)

    with graph.scope("mlp"):
        hidden = graph.activation(graph.linear("lin1", queries, layer.mlp.lin1), layer.mlp.act)
        hidden = graph.linear("lin2", hidden, layer.mlp.lin2)
    queries = _add_norm(graph, "norm3", queries, hidden, layer.norm3)

    attended = _write_attention(
        graph,
        "cross_attn_image_to_token",
        layer.cross_attn_image_to_token,
        queries=placed_image,
        keys=graph.node("Add", queries, tokens),
        values=queries,
    )
    return queries, _add_norm(graph, "norm4", image, attended, layer.norm4)


def _write_attention(
    graph: GraphWriter, name: str, attention: Attention, *, queries: str, keys: str, values: str
) -> str:
    """Attention between two sets of tokens; a batch of 1 on either side serves all prompts."""
    heads = attention.num_heads
    width = attention.internal_dim // heads
    with graph.scope(name):
        q = graph.reshape(graph.linear("q_proj", queries, attention.q_proj), 0, 0, heads, width)
        k = graph.reshape(graph.linear("k_proj", keys, attention.k_proj), 0, 0, heads, width)
        v = graph.reshape(graph.linear("v_proj", values, attention.v_proj), 0, 0, heads, width)
        scores = graph.node(
            "MatMul", graph.transpose(q, 0, 2, 1, 3), graph.transpose(k, 0, 2, 3, 1)
        )
        root = graph.weight("root", torch.tensor(math.sqrt(width)))
        weights = graph.node("Softmax", graph.node("Div", scores, root), attributes={"axis": -1})
        mixed = graph.node("MatMul", weights, graph.transpose(v, 0, 2, 1, 3))
        mixed = graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), 0, 0, heads * width)
        return graph.linear("out_proj", mixed, attention.out_proj)


def _write_heads(
    graph: GraphWriter, tokens: str, image: str, decoder: MaskDecoder, grid: int
) -> tuple[str, str]:
    """P×T×C tokens and P×I×C image to P×M×4G×4G mask logits and P×M predicted IoUs."""
    masks, channels = decoder.num_mask_tokens, decoder.transformer_dim
    image = graph.reshape(graph.transpose(image, 0, 2, 1), 0, channels, grid, grid)
    upscaled = _write_upscaling(graph, image, decoder)
    pixels = graph.reshape(upscaled, 0, channels // 8, 16 * grid * grid)

    ranges = (graph.integers(1), graph.integers(1 + masks), graph.integers(1))
    mask_tokens = graph.node("Slice", tokens, *ranges)
    kernels = _write_hypernetworks(graph, mask_tokens, list(decoder.output_hypernetworks_mlps))
    low_res = graph.reshape(graph.node("MatMul", kernels, pixels), 0, masks, 4 * grid, 4 * grid)

    iou = graph.node("Gather", tokens, graph.integer(0), attributes={"axis": 1})
    head = decoder.iou_prediction_head
    for index, layer in enumerate(head.layers):
        iou = graph.linear(f"iou_prediction_head.{index}", iou, layer)
        if index + 1 < head.num_layers:
            iou = graph.node("Relu", iou)
    return low_res, graph.node("Sigmoid", iou) if head.sigmoid_output else iou


def _write_upscaling(graph: GraphWriter, image: str, decoder: MaskDecoder) -> str:
    """P×C×G×G to P×C/8×4G×4G."""
    first, norm, first_act, second, second_act = decoder.output_upscaling
    with graph.scope("output_upscaling"):
        value = _write_transposed_convolution(graph, "0", image, first)
        value = graph.transpose(value, 0, 2, 3, 1)
        value = _norm(graph, "1", value, norm)
        value = graph.activation(graph.transpose(value, 0, 3, 1, 2), first_act)
        value = _write_transposed_convolution(graph, "3", value, second)
        return graph.activation(value, second_act)


def _write_transposed_convolution(
    graph: GraphWriter, name: str, value: str, layer: nn.ConvTranspose2d
) -> str:
    with graph.scope(name):
        weights = [graph.weight("weight", layer.weight)]
        if layer.bias is not None:
            weights.append(graph.weight("bias", layer.bias))
        return graph.node(
            "ConvTranspose",
            value,
            *weights,
            attributes={"kernel_shape": layer.kernel_size, "strides": layer.stride},
        )


def _write_hypernetworks(graph: GraphWriter, mask_tokens: str, networks: list[MLP]) -> str:
    """P×M×C to P×M×C/8: all M small networks at once, as batched matrix products."""
    value = graph.transpose(mask_tokens, 1, 0, 2)
    depth = networks[0].num_layers
    for index in range(depth):
        layers = [network.layers[index] for network in networks]
        weight = torch.stack([layer.weight.T for layer in layers])
        bias = torch.stack([layer.bias for layer in layers]).unsqueeze(1)
        with graph.scope(f"output_hypernetworks_mlps.{index}"):
            product = graph.node("MatMul", value, graph.weight("weight", weight))
            value = graph.node("Add", product, graph.weight("bias", bias))
        if index + 1 < depth:
            value = graph.node("Relu", value)
    return graph.transpose(value, 1, 0, 2)


def _norm(graph: GraphWriter, name: str, value: str, norm: nn.LayerNorm | LayerNorm2d) -> str:
    return graph.layer_norm(name, value, weight=norm.weight, bias=norm.bias, epsilon=norm.eps)


def _add_norm(graph: GraphWriter, name: str, value: str, change: str, norm: nn.LayerNorm) -> str:
    return _norm(graph, name, graph.node("Add", value, change), norm)
