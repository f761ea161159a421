"""Reads a network out of the bytes of dlib's own serialization: the layers with their names, numbers and weights.

The format is that of dlib/serialize.h and dlib/dnn (core.h, layers.h, tensor.h, cpu_dlib.h):
an integer is a control byte (bit 7: negative, low bits: length) and little-endian bytes; a floating point
number is two integers, mantissa and exponent of 2; a tensor is a version, four sizes and raw little-endian
float32. A net is written from the outside in: first the version of every layer, then, from the input on,
each layer's name, settings, three flags and three tensors that only training needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class FormatError(ValueError):
    """The bytes are not what dlib writes; the message says where."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: dlib's name of it, its integer settings and its parameters, flat float32 (or empty)."""

    name: str
    settings: tuple[int, ...] = ()
    parameters: NDArray[np.float32] = field(repr=False, default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Net:
    """A network: the numbers of its loss layer, and its layers from the input on; the first is the input layer."""

    loss: tuple[float, ...]
    layers: list[Layer]


_HIGHEST_VERSION = 3
_ALIAS_TENSOR = 5
"""The integers of an alias tensor: a version and four sizes, which the layer's settings tell as well."""


class _Reader:
    """A cursor over the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise FormatError(f"it ends early, at byte {len(self._data)}")
        self._at += count
        return taken

    def integer(self) -> int:
        control = self.take(1)[0]
        size = control & 0x0F
        if control & 0x70 or not 1 <= size <= 8:
            raise FormatError(f"no integer at byte {self._at - 1}")
        value = int.from_bytes(self.take(size), "little")
        return -value if control & 0x80 else value

    def integers(self, count: int) -> tuple[int, ...]:
        return tuple(self.integer() for _ in range(count))

    def reals(self, count: int) -> tuple[float, ...]:
        pairs = [self.integers(2) for _ in range(count)]
        return tuple(mantissa * 2.0**exponent for mantissa, exponent in pairs)

    def text(self, length: int | None = None) -> str:
        return self.take(self.integer() if length is None else length).decode("ascii", "replace")

    def tensor(self) -> NDArray[np.float32]:
        version, *sizes = self.integers(5)
        if version != 2 or min(sizes) < 0:
            raise FormatError(f"no tensor before byte {self._at}")
        return np.frombuffer(self.take(4 * math.prod(sizes)), "<f4").astype(np.float32)

    def at_end(self) -> bool:
        return self._at == len(self._data)


METRIC_LOSS = "loss_metric_2"
"""Of a network that gives embeddings; its numbers: margin and distance threshold, of training only."""

MMOD_LOSS = "loss_mmod_"
"""Of a network that finds objects of one size; its numbers: rows and columns of the window, three of training
only, then intersection over union and covered share of two boxes from which on the weaker one is dropped."""


def read_net(data: bytes, loss: str) -> Net:
    """Read a network whose last layer, which is written first, is the loss layer of that name.

    Raises:
        FormatError: the bytes are not such a network.
    """
    reader = _Reader(data)
    version, name = reader.integer(), reader.text()
    if (version, name) != (1, loss):
        raise FormatError(f"it holds no network with {loss} but {name[:40]!r}")
    numbers = _read_loss(reader, loss)
    while (number := reader.integer()) <= _HIGHEST_VERSION:
        pass  # one version per layer; the first larger number is the length of the input layer's name
    layers = [Layer(reader.text(number))]
    reader.reals(3)  # mean red, green and blue
    if layers[0].name.endswith("_sized"):
        reader.integers(2)  # rows and columns
    layers.append(_read_layer(reader))
    reader.integer()  # how many pictures the input layer makes of one
    while not reader.at_end():
        layers.append(_read_layer(reader))
        if layers[-1].name == "fc_2":
            break
    return Net(numbers, layers)


def _read_loss(reader: _Reader, loss: str) -> tuple[float, ...]:
    if loss == METRIC_LOSS:
        return reader.reals(2)
    if reader.integer() != 1:
        raise FormatError("its loss layer has another version")
    window = reader.integers(2)
    numbers = (*map(float, window), *reader.reals(5))
    reader.reals(2)  # which boxes to ignore, of training only
    return numbers


def _read_layer(reader: _Reader) -> Layer:
    layer = _read_parameters(reader)
    if set(reader.take(3)) - set(b"01"):
        raise FormatError(f"layer {layer.name!r} does not end where it should")
    for _ in range(3):
        reader.tensor()  # gradients and the cached output
    return layer


def _read_parameters(reader: _Reader) -> Layer:
    name = reader.text()
    if name == "con_4":
        parameters = reader.tensor()
        layer = Layer(name, reader.integers(7), parameters)  # filters, rows, columns, strides y x, paddings y x
        reader.integers(2 * _ALIAS_TENSOR)
        reader.reals(4)  # factors of training only
        return layer
    if name == "affine_":
        layer = Layer(name, parameters=reader.tensor())
        reader.integers(2 * _ALIAS_TENSOR + 1)
        return layer
    if name == "bn_con2":
        return _read_normalization(reader)
    if name == "fc_2":
        settings = reader.integers(2)  # outputs, inputs
        layer = Layer(name, settings, reader.tensor())
        reader.integers(2 * _ALIAS_TENSOR + 1)
        reader.reals(4)  # factors of training only
        return layer
    if name in ("max_pool_2", "avg_pool_2"):
        return Layer(name, reader.integers(6))  # rows, columns, strides y x, paddings y x
    if name in ("relu_", "add_prev_"):
        return Layer(name)
    raise FormatError(f"unknown layer {name[:40]!r}")


def _read_normalization(reader: _Reader) -> Layer:
    """A batch normalisation as the affine layer that dlib makes of it (layers.h, affine_ from bn_)."""
    gamma_and_beta = reader.tensor().astype(np.float64)
    reader.integers(2 * _ALIAS_TENSOR)
    _means, _inverse_deviations, means, variances = (reader.tensor().astype(np.float64) for _ in range(4))
    reader.integers(2)  # updates and window, of training only
    epsilon = reader.reals(5)[-1]
    if not gamma_and_beta.size == 2 * means.size == 2 * variances.size:
        raise FormatError("a normalisation whose parts differ in size")
    gamma, beta = gamma_and_beta.reshape(2, -1)
    scale = gamma / np.sqrt(variances + epsilon)
    return Layer("affine_", parameters=np.concatenate([scale, beta - scale * means]).astype(np.float32))
