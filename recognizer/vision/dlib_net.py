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


def read_net(data: bytes) -> list[Layer]:
    """Read the layers from the input on; the first one is the input layer.

    Raises:
        FormatError: the bytes are not such a network.
    """
    reader = _Reader(data)
    version, loss = reader.integer(), reader.text()
    if (version, loss) != (1, "loss_metric_2"):
        raise FormatError(f"it holds no metric-learning network of dlib but {loss[:40]!r}")
    reader.reals(2)  # margin and distance threshold, of training only

    while (number := reader.integer()) <= _HIGHEST_VERSION:
        pass  # one version per layer; the first larger number is the length of the input layer's name
    layers = [Layer(reader.text(number))]
    reader.reals(3)  # mean red, green and blue
    reader.integers(2)  # rows and columns

    layers.append(_read_layer(reader))
    reader.integer()  # how many pictures the input layer makes of one
    while not reader.at_end():
        layers.append(_read_layer(reader))
        if layers[-1].name == "fc_2":
            break
    return layers


def _read_layer(reader: _Reader) -> Layer:
    name = reader.text()
    if name == "con_4":
        parameters = reader.tensor()
        layer = Layer(name, reader.integers(7), parameters)  # filters, rows, columns, strides y x, paddings y x
        reader.integers(2 * _ALIAS_TENSOR)
        reader.reals(4)  # factors of training only
    elif name == "affine_":
        layer = Layer(name, parameters=reader.tensor())
        reader.integers(2 * _ALIAS_TENSOR + 1)
    elif name == "fc_2":
        settings = reader.integers(2)  # outputs, inputs
        layer = Layer(name, settings, reader.tensor())
        reader.integers(2 * _ALIAS_TENSOR + 1)
        reader.reals(4)  # factors of training only
    elif name in ("max_pool_2", "avg_pool_2"):
        layer = Layer(name, reader.integers(6))  # rows, columns, strides y x, paddings y x
    elif name in ("relu_", "add_prev_"):
        layer = Layer(name)
    else:
        raise FormatError(f"unknown layer {name[:40]!r}")
    if set(reader.take(3)) - set(b"01"):
        raise FormatError(f"layer {name!r} does not end where it should")
    for _ in range(3):
        reader.tensor()  # gradients and the cached output
    return layer
