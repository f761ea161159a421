"""Learns `ACTIVATION_RANGES` of recognizer/vision/mmod_graph.py: the largest value after each convolution but the last.

    python benchmarks/learn_ranges.py --root ../shared/faces/families ../shared/faces/strangers --first 60

The floating-point network looks at every photo whole, at most 1200 pixels a side, and the largest values are printed
beside the constants in force. The 8-bit network cuts off what is larger, so the photos should be many and real.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _photos import UNREADABLE
from _report import photos_in, progress, table
from PIL import Image, ImageOps

from recognizer.errors import RecognizerError
from recognizer.vision.mmod_graph import ACTIVATION_RANGES, INPUT
from recognizer.vision.score_net import normalised
from recognizer.vision.sessions import Session
from recognizer.vision.weights import load_detector

MOST_PIXELS_A_SIDE = 1200
LARGEST = "largest"


def with_largest_values(graph: bytes) -> bytes:
    """The network with one more output: the largest value of each Relu's result."""
    import onnx

    model = onnx.load_model_from_string(graph)
    relus = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
    for relu in relus:
        model.graph.node.append(onnx.helper.make_node("ReduceMax", [relu], [f"{LARGEST}_{relu}"], keepdims=1))
    names = [f"{LARGEST}_{relu}" for relu in relus]
    model.graph.node.append(onnx.helper.make_node("Concat", names, [LARGEST], axis=0))
    shape = [len(relus), 1, 1, 1]
    model.graph.output.append(onnx.helper.make_tensor_value_info(LARGEST, onnx.TensorProto.FLOAT, shape))
    serialized: bytes = model.SerializeToString()
    return serialized


def largest_values(session: Session, paths: Iterable[Path]) -> dict[Path, NDArray[np.float32]]:
    """The largest value after each convolution, photo by photo; what is no photo is left out."""
    values = {}
    for number, path in enumerate(paths, 1):
        with suppress(*UNREADABLE), Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((MOST_PIXELS_A_SIDE, MOST_PIXELS_A_SIDE))
            pixels = normalised(np.asarray(upright))
            values[path] = session.run(LARGEST, {INPUT: pixels[np.newaxis]}).ravel()
            progress(f"{number} photos")
    progress(f"{len(values)} photos looked at", last=True)
    return values


def report(values: dict[Path, NDArray[np.float32]]) -> None:
    """The constants to write, and how they differ from those in force."""
    of_photos = np.array(list(values.values()))
    learned, names = of_photos.max(axis=0), [path.name for path in values]
    print(f"ACTIVATION_RANGES = ({', '.join(f'{value:.2f}'.rstrip('0') for value in learned.tolist())})\n")
    rows = []
    for layer, (value, now) in enumerate(zip(learned.tolist(), ACTIVATION_RANGES, strict=True)):
        photo = names[int(of_photos[:, layer].argmax())]
        rows.append((layer + 1, f"{value:.4f}", f"{now:g}", f"{value - now:+.4f}", f"{value / now - 1:+.2%}", photo))
    print(table(("convolution", "largest", "in force", "difference", "", "photo"), rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, nargs="+", required=True, help="folders of photos, searched recursively")
    parser.add_argument("--first", type=int, help="so many photos of each folder at most (all)")
    options = parser.parse_args()
    paths = [path for root in options.root for path in photos_in(root)[: options.first]]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            session = Session(with_largest_values(load_detector(Path(folder), "float").graph))
        except RecognizerError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
    values = largest_values(session, paths)
    if not values:
        parser.error(f"no photos in {', '.join(map(str, options.root))}")
    report(values)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
