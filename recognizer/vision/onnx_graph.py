"""Writes dlib's face ResNet as an ONNX graph. Only here is `onnx` imported, and only when a graph is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recognizer.vision.dlib_net import METRIC_LOSS, FormatError, Layer, read_net

INPUT, OUTPUT = "chips", "embeddings"
EMBEDDING_SIZE = 128

_MEAN = np.array([122.782, 117.001, 104.298])
"""Mean red, green and blue that dlib subtracts before dividing by 256 (dnn/input.h, input_rgb_image_sized)."""
_INPUT_PIXELS = 150
_OPSET = 17
_IR_VERSION = 8

_STEM = ["input_rgb_image_sized", "con_4", "affine_", "relu_", "max_pool_2"]
_BLOCK = ["con_4", "affine_", "relu_", "con_4", "affine_", "add_prev_", "relu_"]
_BLOCK_DOWN = [*_BLOCK[:5], "avg_pool_2", *_BLOCK[5:]]
_TAIL = ["avg_pool_2", "fc_2"]
_BLOCKS = "---" + "v---" + "v--" + "v--" + "v"
"""The 14 residual blocks from the input on; v: the block halves its picture (face_recognition.cpp, anet_type)."""


def build_resnet(data: bytes) -> bytes:
    """Make the graph of the bytes of dlib_face_recognition_resnet_model_v1.dat; see `build`."""
    return build(read_net(data, METRIC_LOSS).layers)


def build(layers: Sequence[Layer]) -> bytes:
    """Build the graph: `chips` (n, 150, 150, 3) uint8 RGB to `embeddings` (n, 128) float32.

    Raises:
        FormatError: the layers are not those of dlib's face_recognition_resnet_model_v1.
    """
    expected = [*_STEM, *(name for b in _BLOCKS for name in (_BLOCK_DOWN if b == "v" else _BLOCK)), *_TAIL]
    if [layer.name for layer in layers] != expected:
        raise FormatError(f"its {len(layers)} layers are not those of dlib's face recognition network")
    return _Builder(layers).build()


class _Builder:
    """Appends nodes layer by layer; `_value`, `_channels` and `_side` describe the last output."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        import onnx

        self._onnx = onnx
        self._layers = iter(layers)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._value, self._channels, self._side = INPUT, 3, _INPUT_PIXELS

    def build(self) -> bytes:
        self._node("Cast", [self._value], to=self._onnx.TensorProto.FLOAT)
        self._node("Transpose", [self._value], perm=[0, 3, 1, 2])
        next(self._layers)  # the input layer's mean and division are folded into the first convolution
        self._convolve(_MEAN, 256.0)
        self._relu()
        self._pool(next(self._layers))
        for kind in _BLOCKS:
            self._block(down=kind == "v")
        next(self._layers)  # the average over everything that is left
        self._node("GlobalAveragePool", [self._value])
        self._node("Flatten", [self._value])
        fully_connected = next(self._layers)
        weights = _shaped(fully_connected, (self._channels, EMBEDDING_SIZE))
        self._node("MatMul", [self._value, self._constant(weights)], output=OUTPUT)
        return self._model()

    def _block(self, *, down: bool) -> None:
        before = self._value, self._channels, self._side
        self._convolve()
        self._relu()
        self._convolve()
        inner = self._value, self._channels, self._side
        if down:
            self._value, self._channels, self._side = before
            self._pool(next(self._layers))
            before = self._value, self._channels, self._side
        next(self._layers)
        # dlib's add_prev: what is smaller is filled up with zeros at the end of each axis (tensor_tools, add)
        self._channels, self._side = max(before[1], inner[1]), max(before[2], inner[2])
        self._node("Add", [self._padded(*before), self._padded(*inner)])
        self._relu()

    def _convolve(self, mean: NDArray[np.float64] | None = None, divisor: float = 1.0) -> None:
        """A convolution with the affine layer after it, and the input's scaling before it, folded in."""
        convolution, affine = next(self._layers), next(self._layers)
        filters, rows, columns, *strides_and_pads = convolution.settings
        shape = (filters, self._channels, rows, columns)
        flat = _shaped(convolution, (int(np.prod(shape)) + filters,)).astype(np.float64)
        weights, bias = flat[:-filters].reshape(shape), flat[-filters:]
        if mean is not None:
            bias = bias - np.einsum("fcyx,c->f", weights, mean) / divisor
        gamma, beta = _shaped(affine, (2, filters)).astype(np.float64)
        weights = weights / divisor * gamma[:, None, None, None]
        inputs = [self._value, self._constant(weights), self._constant(bias * gamma + beta)]
        self._window("Conv", inputs, (rows, columns, *strides_and_pads))
        self._channels = filters

    def _pool(self, layer: Layer) -> None:
        self._window("MaxPool" if layer.name == "max_pool_2" else "AveragePool", [self._value], layer.settings)

    def _window(self, operator: str, inputs: list[str], settings: Sequence[int]) -> None:
        rows, columns, stride_y, stride_x, pad_y, pad_x = settings
        if (rows, stride_y, pad_y) != (columns, stride_x, pad_x) or min(rows, stride_y) < 1:
            raise FormatError(f"a {operator} of {settings} is not part of dlib's face recognition network")
        self._node(operator, inputs, kernel_shape=[rows] * 2, strides=[stride_y] * 2, pads=[pad_y] * 4)
        self._side = (self._side + 2 * pad_y - rows) // stride_y + 1

    def _padded(self, value: str, channels: int, side: int) -> str:
        if (channels, side) == (self._channels, self._side):
            return value
        grow = self._side - side
        pads = np.array([0, 0, 0, 0, 0, self._channels - channels, grow, grow], np.int64)
        return self._node("Pad", [value, self._constant(pads)])

    def _relu(self) -> None:
        if next(self._layers).name != "relu_":
            raise FormatError("a relu layer is missing")
        self._node("Relu", [self._value])

    def _node(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        self._value = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [self._value], **attributes))
        return self._value

    def _constant(self, values: NDArray[Any]) -> str:
        name = f"weights_{len(self._weights)}"
        values = values if values.dtype == np.int64 else values.astype(np.float32)
        self._weights.append(self._onnx.numpy_helper.from_array(values, name))
        return name

    def _model(self) -> bytes:
        helper, types = self._onnx.helper, self._onnx.TensorProto
        chips = helper.make_tensor_value_info(INPUT, types.UINT8, ["n", _INPUT_PIXELS, _INPUT_PIXELS, 3])
        embeddings = helper.make_tensor_value_info(OUTPUT, types.FLOAT, ["n", EMBEDDING_SIZE])
        graph = helper.make_graph(self._nodes, "dlib-resnet-v1", [chips], [embeddings], self._weights)
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="recognizer")
        self._onnx.checker.check_model(model)
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized


def _shaped(layer: Layer, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if layer.parameters.size != np.prod(shape) or not np.isfinite(layer.parameters).all():
        raise FormatError(f"a {layer.name} layer has {layer.parameters.size} weights where {shape} finite ones belong")
    return layer.parameters.reshape(shape)
