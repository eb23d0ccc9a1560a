"""int8: ONNX Runtime's static quantisation of an exported network, with what a TResNet needs to keep its precision."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from csl.errors import InputError
from csl.models.description import INPUT, Description

MAX_RELU_SLOPE = 0.011
"""A leaky ReLU of at most this slope becomes a ReLU: what it lets through is under a step of 8 bits, or just over in the
stem, and convolution and ReLU become one operator."""


def quantise(
    source: str | Path,
    destination: str | Path,
    batches: Callable[[], Iterator[np.ndarray]],
    description: Description,
    place: str = "the photos",
) -> None:
    """Write the int8 form of a float32 ONNX file: 8-bit weights per channel, 8-bit activations, calibrated on photos.

    Weights are symmetric int8; activations are uint8, which is what VNNI multiplies with int8.

    Args:
        source: as `csl.export` wrote it.
        destination: the file to write.
        batches: gives images float32 [B, 3, H, W] in [0, 1], each time it is called from the first on.
        description: goes into the file.
        place: what the photos are, as in messages.

    Raises:
        InputError: no photo that can be read.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    merged = _leaky_to_relu(_unshared(onnx.load(str(source))))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), ExitStack() as after:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)  # ONNX Runtime's quantiser logs advice on the root logger
        after.callback(logging.disable, logging.NOTSET)
        prepared = Path(folder, "prepared.onnx")
        onnx.save(merged, str(prepared))
        reader = _Reader(batches)
        quantize_static(
            str(prepared),
            str(destination),
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_sensitive(merged.graph),
            extra_options={"WeightSymmetric": True, "CalibMovingAverage": True},
        )
    if not reader.count:
        raise InputError(f"--calibrate {place}: none of its images can be read")
    quantised = onnx.load(str(destination))
    onnx.helper.set_model_props(quantised, description.to_metadata())
    onnx.save(quantised, str(destination))


class _Reader:
    """ONNX Runtime's CalibrationDataReader."""

    def __init__(self, batches):
        self.batches, self.count = batches(), 0

    def get_next(self):
        """The next batch by the input's name, None after the last."""
        batch = next(self.batches, None)
        if batch is None:
            return None
        self.count += 1
        return {INPUT: batch}


def _unshared(network):
    """Every operator with constants of its own. The exporter stores equal ones once, zero biases before all, and a
    convolution whose bias another one has too is not quantised: its bias needs a scale of its own."""
    import onnx

    graph = network.graph
    values, used = {tensor.name: tensor for tensor in graph.initializer}, set()
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
            graph.node.remove(node)
            continue
        for place, name in enumerate(node.input):
            if name not in values:
                continue
            tensor = values[name]
            if tensor.name in used:
                own = onnx.TensorProto()
                own.CopyFrom(tensor)
                own.name = f"{tensor.name}_{len(used)}"
                graph.initializer.append(own)
                tensor = own
            used.add(tensor.name)
            node.input[place] = tensor.name
    return network


def _leaky_to_relu(network):
    for node in network.graph.node:
        if node.op_type == "LeakyRelu" and node.attribute[0].f <= MAX_RELU_SLOPE:
            node.op_type = "Relu"
            del node.attribute[:]
    return network


def _sensitive(graph):
    """Names of the nodes that stay in float32: the first convolution, which sees the pixels, and the head.

    The head is what comes behind the last convolution; in a network with a single one, a transformer, the last matrix and
    what comes behind it.
    """
    convolutions = [i for i, node in enumerate(graph.node) if node.op_type == "Conv"]
    matrices = [i for i, node in enumerate(graph.node) if node.op_type in ("Gemm", "MatMul")]
    if len(convolutions) > 1:
        head = range(convolutions[-1] + 1, len(graph.node))
        head = [i for i in head if graph.node[i].op_type not in ("Add", "Relu")]  # of the last block, which it ends
    else:
        head = range(matrices[-1], len(graph.node)) if matrices else ()
    return [graph.node[i].name for i in (*convolutions[:1], *head)]
