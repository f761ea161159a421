"""Writes dlib's CNN face detector as an ONNX graph, in floating point or in 8 bits.

The network (cnn_face_detector.cpp, net_type) is six convolutions of 5 x 5, the first three with stride 2, and one of
9 x 9 that gives one score for each 8 x 8 pixels. Some changes make it quick on a CPU and none of them changes a score:

- The last convolution becomes one of 1 x 1 to 81 planes, which are then added up, each moved by its own offset
  (Col2Im); as it stands, its single output would keep a CPU's vectors empty.
- In floating point 45 channels become 48, which fills vectors of 8 or 16; the new ones are 0.
- In 8 bits the picture is taken as 2 x 2 blocks, 12 channels at half the width and height, so that the first
  convolution, of 3 channels and 5 x 5 with stride 2, becomes one of 12 channels and 3 x 3.

In 8 bits the weights have 7 bits, per filter: then no product overflows in the 16-bit sums of CPUs without VNNI
(Intel's vpmaddubsw), and every CPU gives the same scores. The ranges of the activations were learned once by
benchmarks/learn_ranges.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recognizer.vision.dlib_net import MMOD_LOSS, FormatError, Layer, read_net

INPUT, OUTPUT = "pictures", "scores"

WINDOW_PIXELS = 80
"""Side of the face that a score is for."""

NMS_OVERLAP = 0.3382761351109955
"""Intersection over union from which on the weaker of two boxes is dropped; in the file, and checked there."""

MEAN = (122.782, 117.001, 104.298)
"""Mean red, green and blue that dlib subtracts before dividing by 256 (dnn/input.h, input_rgb_image_pyramid)."""

ACTIVATION_RANGES = (6.28, 11.82, 4.93, 4.45, 6.9, 14.28)
"""Largest value after each convolution but the last, over real photos; larger ones are cut off there. Learned by
benchmarks/learn_ranges.py from 86 press photos and family snapshots, those of `families/` and the first 60 of
`strangers/` in the photos for developers."""

_LAYERS = ["con_4", "affine_", "relu_"] * 6 + ["con_4"]
_WEIGHT_STEPS = 63
_BYTE_STEPS = 255
_OPSET = 18
_IR_VERSION = 8


class _Convolution(NamedTuple):
    """Weights (filters, channels, rows, columns) and bias (filters,), float64, with stride and padding."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    stride: int
    padding: int


def build_detector(data: bytes, *, quantized: bool) -> bytes:
    """Make the graph of the bytes of mmod_human_face_detector.dat.

    `pictures` is (n, H, W, 3) float32 RGB, normalised: mean subtracted, divided by 256; when `quantized` it is
    (n, H/2, W/2, 12) uint8, the blocks of 2 x 2 pixels: channel 6 * (row % 2) + 3 * (column % 2) + colour.
    `scores` is (n, 1, h, w) float32; `score_net` says of which windows.

    Raises:
        FormatError: the bytes are not this network.
    """
    net = read_net(data, MMOD_LOSS)
    if [layer.name for layer in net.layers] != ["input_rgb_image_pyramid", *_LAYERS]:
        raise FormatError(f"its {len(net.layers)} layers are not those of dlib's face detector")
    if (*net.loss[:2], *net.loss[5:]) != (WINDOW_PIXELS, WINDOW_PIXELS, NMS_OVERLAP, 1.0):
        raise FormatError("its window or its suppression of overlapping boxes is another one")
    convolutions = _fold(net.layers[1:])
    convolutions = _in_blocks(convolutions) if quantized else _in_full_vectors(convolutions)
    return _Builder(quantized).build(convolutions)


def _fold(layers: Sequence[Layer]) -> list[_Convolution]:
    """The convolutions, each with the affine layer after it folded in."""
    folded, channels = [], 3
    for at, layer in enumerate(layers):
        if layer.name != "con_4":
            continue
        filters, rows, columns, stride, _, padding, _ = layer.settings
        flat = _finite(layer, filters * (channels * rows * columns + 1))
        weights, bias = flat[:-filters].reshape(filters, channels, rows, columns), flat[-filters:]
        if at + 1 < len(layers):
            scale, shift = _finite(layers[at + 1], 2 * filters).reshape(2, filters)
            weights, bias = weights * scale[:, None, None, None], bias * scale + shift
        folded.append(_Convolution(weights, bias, stride, padding))
        channels = filters
    return folded


def _in_blocks(convolutions: Sequence[_Convolution]) -> list[_Convolution]:
    """The first convolution on blocks of 2 x 2 pixels, with the input's normalisation in it."""
    first = convolutions[0]
    if (first.weights.shape[1:], first.stride, first.padding) != ((3, 5, 5), 2, 0):
        raise FormatError("its first convolution is another one")
    bias = first.bias - np.einsum("fcyx,c->f", first.weights, MEAN) / 256
    even = np.zeros((len(bias), 3, 6, 6))
    even[:, :, :5, :5] = first.weights / 256
    blocks = even.reshape(-1, 3, 3, 2, 3, 2).transpose(0, 3, 5, 1, 2, 4).reshape(-1, 12, 3, 3)
    return [_Convolution(blocks, bias, 1, 0), *convolutions[1:]]


def _in_full_vectors(convolutions: Sequence[_Convolution]) -> list[_Convolution]:
    """All but the first input and the last output with a multiple of 16 channels."""
    padded = []
    for number, (weights, bias, stride, padding) in enumerate(convolutions):
        filters, channels = weights.shape[:2]
        new_filters = -filters % 16 if number < len(convolutions) - 1 else 0
        new_channels = -channels % 16 if number else 0
        weights = np.pad(weights, ((0, new_filters), (0, new_channels), (0, 0), (0, 0)))
        padded.append(_Convolution(weights, np.pad(bias, (0, new_filters)), stride, padding))
    return padded


class _Builder:
    """Appends nodes; when quantized, every convolution stands between DequantizeLinear and QuantizeLinear, which
    ONNX Runtime and other runtimes turn into one of 8 bits."""

    def __init__(self, quantized: bool) -> None:
        import onnx

        self._onnx = onnx
        self._quantized = quantized
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self, convolutions: Sequence[_Convolution]) -> bytes:
        value, step = self._node("Transpose", [INPUT], perm=[0, 3, 1, 2]), 1.0
        for convolution, largest in zip(convolutions[:-1], ACTIVATION_RANGES, strict=True):
            value = self._node("Relu", [self._convolve(value, step, convolution)])
            if self._quantized:
                step = largest / _BYTE_STEPS
                value = self._node("QuantizeLinear", [value, *self._step(step, np.uint8)])
        self._sum_of_planes(value, step, convolutions[-1])
        return self._model()

    def _convolve(self, value: str, step: float, convolution: _Convolution) -> str:
        weights, bias, stride, padding = convolution
        inputs = [value, self._constant(weights), self._constant(bias)]
        if self._quantized:
            steps = np.maximum(np.abs(weights).max(axis=(1, 2, 3)), 1e-12) / _WEIGHT_STEPS
            inputs = [
                self._node("DequantizeLinear", [value, *self._step(step, np.uint8)]),
                self._dequantized(weights / steps[:, None, None, None], steps, np.int8),
                self._dequantized(bias / (steps * step), steps * step, np.int32),
            ]
        shape = list(weights.shape[2:])
        return self._node("Conv", inputs, kernel_shape=shape, strides=[stride] * 2, pads=[padding] * 4)

    def _sum_of_planes(self, value: str, step: float, last: _Convolution) -> None:
        (kernel,), (bias,), _, padding = last
        channels, rows, columns = kernel.shape
        # Col2Im moves forward what a convolution fetches from behind: the kernel is turned around
        planes = kernel.transpose(1, 2, 0)[::-1, ::-1].reshape(-1, channels, 1, 1)
        value = self._convolve(value, step, _Convolution(planes, np.zeros(len(planes)), 1, 0))
        size = self._node("Shape", [value], start=2, end=4)
        flat = self._node("Reshape", [value, self._constant(np.array([0, len(planes), -1], np.int64))])
        block = self._constant(np.array([rows, columns], np.int64))
        value = self._node("Col2Im", [flat, size, block], pads=[padding] * 4)
        self._node("Add", [value, self._constant(np.full((1, 1, 1, 1), bias))], output=OUTPUT)

    def _dequantized(self, values: NDArray[np.float64], steps: NDArray[np.float64], kind: type) -> str:
        constant = self._constant(np.rint(values).astype(kind))
        zeros = self._constant(np.zeros(len(steps), kind))
        return self._node("DequantizeLinear", [constant, self._constant(steps), zeros], axis=0)

    def _step(self, step: float, kind: type) -> list[str]:
        return [self._constant(np.float64(step)), self._constant(np.zeros((), kind))]

    def _node(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        value = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [value], **attributes))
        return value

    def _constant(self, values: Any) -> str:
        name = f"constant_{len(self._constants)}"
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def _model(self) -> bytes:
        helper, types = self._onnx.helper, self._onnx.TensorProto
        kind = types.UINT8 if self._quantized else types.FLOAT
        pictures = helper.make_tensor_value_info(INPUT, kind, ["n", "rows", "columns", 12 if self._quantized else 3])
        scores = helper.make_tensor_value_info(OUTPUT, types.FLOAT, ["n", 1, "y", "x"])
        graph = helper.make_graph(self._nodes, "dlib-mmod-v1", [pictures], [scores], self._constants)
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="recognizer")
        self._onnx.checker.check_model(model)
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized


def _finite(layer: Layer, size: int) -> NDArray[np.float64]:
    if layer.parameters.size != size or not np.isfinite(layer.parameters).all():
        raise FormatError(f"a {layer.name} layer has {layer.parameters.size} weights where {size} finite ones belong")
    return layer.parameters.astype(np.float64)
