"""Bytes to faces: equal to face_recognition, the same from every thread, bounded, and without a leak."""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
from PIL import Image

from recognizer.config import Settings
from recognizer.deadline import Deadline
from recognizer.errors import Busy, DeadlineExceeded, ImageCorrupt, Unavailable
from recognizer.faces import Analysis, Box
from recognizer.vision import analysis as analysis_module
from recognizer.vision.detection import Detection
from recognizer.vision.engine import Engine, OnnxEngine, open_engine
from recognizer.vision.hog import HogDetector
from recognizer.vision.images import DecodedImage, ImageLimits, decoded

PHOTOS = ["obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg", "obama_partial_face.jpg", "obama_partial_face2.jpg"]
LIMITS = ImageLimits(20 * 2**20, 64_000_000, 8_000_000)
EQUAL = 1e-4
"""The largest difference from dlib's own embeddings that is allowed."""

Photo = Callable[[str], bytes]


def analyse(engine: Engine, data: bytes) -> Analysis:
    return engine.analyse(data, Deadline(60))


def embeddings(analysis: Analysis) -> np.ndarray:
    return np.array([face.embedding for face in analysis.faces])


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


class Spy:
    """A detector that finds nothing and tells what it was shown."""

    def __init__(self, tell: Callable[[np.ndarray, int], None]) -> None:
        self._tell = tell

    def run(self, pixels: np.ndarray, upsample: int, threshold: float) -> tuple[list, list, list]:
        self._tell(pixels, upsample)
        return [], [], []


# -- equal to face_recognition --


def assert_embeddings_equal_the_librarys(analysis: Analysis, library: ModuleType, pixels: np.ndarray) -> None:
    """For the boxes that are reported, whatever detector found them."""
    boxes = [(face.box.top, face.box.right, face.box.bottom, face.box.left) for face in analysis.faces]
    expected = np.array(library.face_encodings(pixels, boxes)).reshape(-1, 128)
    if boxes:
        assert np.abs(embeddings(analysis) - expected).max() <= EQUAL


def assert_equal_to_library(engine: Engine, library: ModuleType, data: bytes) -> int:
    """The same boxes and the same embeddings; returns how many."""
    ours = analyse(engine, data)
    with decoded(data, LIMITS) as image:
        height, width, _ = image.pixels.shape
        boxes = [face.box for face in ours.faces]
        trimmed = {(max(0, box.top), min(width, box.right), min(height, box.bottom), max(0, box.left)) for box in boxes}
        assert trimmed == set(library.face_locations(image.pixels))
        assert_embeddings_equal_the_librarys(ours, library, image.pixels)
    return len(ours.faces)


@pytest.mark.parametrize("name", PHOTOS)
def test_with_hog_boxes_and_embeddings_equal_those_of_face_recognition(
    hog_engine: Engine, face_recognition: ModuleType, photo: Photo, name: str
) -> None:
    assert assert_equal_to_library(hog_engine, face_recognition, photo(name)) == 1


@pytest.mark.parametrize("name", PHOTOS)
def test_by_default_embeddings_equal_those_of_face_recognition_for_the_same_box(
    engine: Engine, hog_engine: Engine, face_recognition: ModuleType, photo: Photo, name: str
) -> None:
    data = photo(name)
    (face,) = analyse(engine, data).faces
    (other,) = analyse(hog_engine, data).faces
    assert face.box.overlap(other.box) > 0.6
    assert np.linalg.norm(face.embedding - other.embedding) < 0.2
    with decoded(data, LIMITS) as image:
        assert_embeddings_equal_the_librarys(analyse(engine, data), face_recognition, image.pixels)


def test_more_photos_equal_those_of_face_recognition(
    engine: Engine, hog_engine: Engine, face_recognition: ModuleType, shared: Path
) -> None:
    people = sorted(shared.glob("faces/people/*/*"))[::25]
    groups = sorted(shared.glob("faces/detection/*.jpg"))[::15]
    found = 0
    for path in people + groups:
        data = path.read_bytes()
        found += assert_equal_to_library(hog_engine, face_recognition, data)
        with decoded(data, LIMITS) as image:
            assert_embeddings_equal_the_librarys(analyse(engine, data), face_recognition, image.pixels)
    assert found >= 20


@pytest.mark.parametrize("detector", ["hog", "cnn_exact"])
def test_the_reference_engine_gives_the_same_faces_under_the_same_model_id(
    face_recognition: ModuleType, vision_settings: Callable[..., Settings], photo: Photo, detector: str
) -> None:
    settings = vision_settings(detector=detector, upsample=0)
    reference = open_engine(settings.model_copy(update={"engine": "face_recognition"}))
    with closing(reference), closing(open_engine(settings)) as engine:
        assert reference.model_id == engine.model_id
        for name in ("obama.jpg", "biden.jpg"):
            with Image.open(io.BytesIO(photo(name))) as image:
                image.thumbnail((500, 500))  # dlib's CNN takes 7 microseconds a pixel
                data = encode(image)
            ours, theirs = analyse(engine, data), analyse(reference, data)
            assert len(ours.faces) == 1
            assert [face.box for face in theirs.faces] == [face.box for face in ours.faces]
            assert [face.landmarks for face in theirs.faces] == [face.landmarks for face in ours.faces]
            scores = [[face.detection_score for face in each.faces] for each in (ours, theirs)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3)
            assert np.abs(embeddings(ours) - embeddings(theirs)).max() <= EQUAL


def test_the_model_id_names_what_shapes_an_embedding(engine: Engine) -> None:
    assert engine.model_id.startswith("dlib-resnet-v1")
    for part in ("5pt", "chip150-0.25", "1crop-cnn"):
        assert part in engine.model_id


def test_the_mean_over_crops_lies_in_the_same_space(
    engine: Engine, vision_settings: Callable[..., Settings], photo: Photo
) -> None:
    one = [embeddings(analyse(engine, photo(name)))[0] for name in ("obama.jpg", "obama2.jpg", "biden.jpg")]
    for crops in (2, 6):
        with closing(open_engine(vision_settings(embedding_crops=crops))) as more:
            assert more.model_id == engine.model_id.replace("1crop", f"{crops}crop")
            obama, again, biden = (
                embeddings(analyse(more, photo(name)))[0] for name in ("obama.jpg", "obama2.jpg", "biden.jpg")
            )
        assert 0 < np.linalg.norm(obama - one[0]) < 0.2
        for same in (np.linalg.norm(obama - again), np.linalg.norm(obama - one[1])):
            assert same < 0.5
        for different in (np.linalg.norm(obama - biden), np.linalg.norm(obama - one[2])):
            assert different > 0.7


def test_a_face_has_the_mean_of_its_crops_embeddings(
    vision_settings: Callable[..., Settings], photo: Photo, face_recognition: ModuleType
) -> None:
    data = photo("biden.jpg")
    with closing(OnnxEngine(vision_settings(embedding_crops=6))) as engine, decoded(data, LIMITS) as image:
        (face,) = analyse(engine, data).faces
        aligned = engine._aligner.align(image.pixels, face.box)
        each = engine._encoder.encode([[chip] for chip in aligned.chips])
        css = (face.box.top, face.box.right, face.box.bottom, face.box.left)
        (theirs,) = face_recognition.face_encodings(image.pixels, [css])
    assert len(each) == 6
    assert np.abs(each[0] - theirs).max() <= EQUAL  # the first is dlib's own
    assert np.abs(face.embedding - each.mean(axis=0)).max() < 1e-6
    assert np.array_equal(aligned.chips[3], aligned.chips[0][:, ::-1])


def test_the_same_person_is_near_and_another_is_far(engine: Engine, photo: Photo) -> None:
    obama, again, biden = (
        embeddings(analyse(engine, photo(name)))[0] for name in ("obama.jpg", "obama2.jpg", "biden.jpg")
    )
    assert np.linalg.norm(obama - again) < 0.5
    assert np.linalg.norm(obama - biden) > 0.7


# -- what an analysis says --


def test_an_analysis_is_complete(engine: Engine, photo: Photo) -> None:
    data = photo("obama.jpg")
    analysis = analyse(engine, data)
    with Image.open(io.BytesIO(data)) as image:
        assert (analysis.width, analysis.height, analysis.format) == (*image.size, "JPEG")
    assert list(analysis.timings_ms) == ["decode", "detect", "align", "encode"]
    (face,) = analysis.faces
    assert face.embedding.dtype == np.float32
    assert face.embedding.shape == (128,)
    assert face.detection_score > 0
    left_eye, _, right_eye, _, nose = face.landmarks  # the person's left, hence to the right in the picture
    assert right_eye[0] < nose[0] < left_eye[0]
    for x, y in face.landmarks:
        assert face.box.left < x < face.box.right
        assert face.box.top < y < face.box.bottom


def test_no_face_is_no_error(engine: Engine) -> None:
    for size in ((300, 200), (1, 1), (20, 20), (4000, 2), (2, 4000)):
        analysis = analyse(engine, encode(Image.new("RGB", size, "grey")))
        assert analysis.faces == ()
        assert (analysis.width, analysis.height) == size


@pytest.fixture
def crowd(photos: Path) -> Image.Image:
    """The same head in three sizes."""
    with Image.open(photos / "biden.jpg") as image:
        head = image.convert("RGB")
    picture = Image.new("RGB", (head.width * 2, head.height), "grey")
    for x, y, part in ((0, 0, 4), (head.width // 3, 0, 2), (head.width, 0, 1)):
        picture.paste(head.resize((head.width // part, head.height // part)), (x, y))
    return picture


def test_faces_come_largest_first_and_as_they_do_one_by_one(engine: Engine, crowd: Image.Image, photo: Photo) -> None:
    faces = analyse(engine, encode(crowd)).faces
    assert [face.box.area for face in faces] == sorted((face.box.area for face in faces), reverse=True)
    assert len(faces) == 3
    assert faces[0].box.left > crowd.width // 2
    alone = embeddings(analyse(engine, photo("biden.jpg")))[0]
    assert [float(np.linalg.norm(face.embedding - alone)) < 0.4 for face in faces] == [True, True, True]


def test_a_batch_gives_what_single_faces_give(vision_settings: Callable[..., Settings]) -> None:
    encoder = OnnxEngine(vision_settings())._encoder
    chips = [[chip] for chip in np.random.default_rng(5).integers(0, 255, (19, 150, 150, 3), np.uint8)]
    together = encoder.encode(chips)
    assert together.shape == (19, 128)
    assert together.dtype == np.float32
    assert np.abs(together - np.concatenate([encoder.encode([chip]) for chip in chips])).max() < 1e-6
    assert encoder.encode([]).shape == (0, 128)
    with pytest.raises(DeadlineExceeded):
        encoder.encode(chips, Deadline(0))


def test_smaller_faces_than_asked_for_are_left_out(engine: Engine, crowd: Image.Image) -> None:
    data = encode(crowd)
    largest, *_, smallest = (face.box.width for face in analyse(engine, data).faces)
    assert smallest > 40
    for asked, expected in ((0, 3), (1, 3), (40, 3), (smallest, 3), (largest - 30, 1), (10_000, 0)):
        found = engine.analyse(data, Deadline(60), min_face_pixels=asked).faces
        assert len(found) == expected, asked
        assert all(face.box.width >= asked for face in found)


def test_the_smallest_face_asked_for_decides_how_far_an_image_is_enlarged() -> None:
    doubled: list[int] = []
    detector = HogDetector(2, 10**6)
    detector._local.detector = Spy(lambda pixels, upsample: doubled.append(upsample))
    for smallest in (0, 18, 19, 36, 37, 71, 72, 500):
        detector.detect(np.zeros((50, 50, 3), np.uint8), smallest)
    assert doubled[::2] == [2, 2, 2, 1, 1, 1, 0, 0]  # every second one is the small blank


def test_eight_orientations_give_the_same_face(engine: Engine, shared: Path) -> None:
    paths = sorted(shared.glob("faces/rotated/Family1-Mom1_orientation*.jpg"))
    found = [analyse(engine, path.read_bytes()) for path in paths]
    assert len(found) == 8
    for analysis in found:
        assert (analysis.width, analysis.height) == (found[0].width, found[0].height)
        assert analysis.faces[0].box.overlap(found[0].faces[0].box) > 0.95
        assert np.linalg.norm(analysis.faces[0].embedding - found[0].faces[0].embedding) < 0.1


# -- large images --


def test_a_photo_of_32_megapixels_keeps_its_face(engine: Engine, photos: Path) -> None:
    with Image.open(photos / "obama2.jpg") as image:
        head = image.convert("RGB").resize((1200, 1200 * image.height // image.width))
    large = Image.new("RGB", (6928, 4619), (90, 120, 90))
    large.paste(head, (5000, 2500))
    data = encode(large, "JPEG", quality=85)
    del large
    process = psutil.Process()
    before = process.memory_info().rss
    most = before
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        analysis = analyse(engine, data)
    finally:
        done.set()
        watcher.join()
    assert (analysis.width, analysis.height) == (6928, 4619)
    (face,) = analysis.faces
    expected = analyse(engine, encode(head)).faces[0]
    shifted = Box(
        *(
            edge + (5000, 2500)[at % 2]
            for at, edge in enumerate((expected.box.left, expected.box.top, expected.box.right, expected.box.bottom))
        )
    )
    assert face.box.overlap(shifted) > 0.5
    assert all(shifted.left < x < shifted.right and shifted.top < y < shifted.bottom for x, y in face.landmarks)
    assert np.linalg.norm(face.embedding - expected.embedding) < 0.25
    assert most - before < 250 * 2**20  # decoded whole, it would take 390 MB


@pytest.mark.parametrize("name", ["003_A.jpg", "004_A.jpg", "test8.jpg"])
def test_large_photos_lose_no_face(engine: Engine, shared: Path, name: str) -> None:
    faces = analyse(engine, (shared / "faces" / "large" / name).read_bytes()).faces
    assert len(faces) >= {"test8.jpg": 38}.get(name, 1)


def test_what_is_searched_is_bounded() -> None:
    searched: list[int] = []
    detector = HogDetector(2, 1_000_000)
    detector._local.detector = Spy(lambda pixels, upsample: searched.append(pixels.size // 3 * 4**upsample))
    for height, width in ((100, 100), (250, 250), (700, 700), (999, 999), (3000, 2000)):
        searched.clear()
        assert detector.detect(np.zeros((height, width, 3), np.uint8), 1) == []
        assert 0 < searched[0] <= 2_000_000


# -- many at once --


def test_many_threads_give_what_one_gives(vision_settings: Callable[..., Settings], photo: Photo) -> None:
    engine = OnnxEngine(vision_settings())
    engine._gate._slots = 6  # more than a small machine has cores, so that threads do meet
    data = {name: photo(name) for name in PHOTOS}
    alone = {name: analyse(engine, data[name]) for name in PHOTOS}
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda name: (name, analyse(engine, data[name])), PHOTOS * 4))
    engine.close()
    for name, analysis in together:
        assert analysis.faces == alone[name].faces
        assert np.array_equal(embeddings(analysis), embeddings(alone[name]))


def test_each_thread_has_a_detector_of_its_own() -> None:
    detector = HogDetector(1, 1_000_000)
    with ThreadPoolExecutor(3) as pool:
        barrier = threading.Barrier(3)

        def own(_: int) -> object:
            barrier.wait(30)
            return detector._detector()

        first = list(pool.map(own, range(3)))
        second = list(pool.map(own, range(3)))
    assert len(set(map(id, first))) == 3
    assert set(map(id, first)) == set(map(id, second))


# -- bounded in time --


def test_no_slot_is_busy_and_a_closed_engine_is_unavailable(
    vision_settings: Callable[..., Settings], photo: Photo
) -> None:
    engine = OnnxEngine(vision_settings(workers=64, queue_timeout_seconds=0.01))
    with engine._gate.slot(Deadline(60)):  # 64 workers on fewer cores: one slot each
        with pytest.raises(Busy):
            analyse(engine, photo("obama.jpg"))
        with pytest.raises(DeadlineExceeded):
            engine.analyse(photo("obama.jpg"), Deadline(0))
    assert analyse(engine, photo("obama.jpg")).faces
    engine.close()
    engine.close()
    with pytest.raises(Unavailable):
        analyse(engine, photo("obama.jpg"))


@pytest.mark.parametrize("stage", ["decode", "detect"])
def test_the_deadline_is_kept_between_the_stages(
    engine: Engine, photo: Photo, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    assert isinstance(engine, OnnxEngine)
    deadline = Deadline(60)

    def decode_for_too_long(data: bytes, limits: ImageLimits) -> AbstractContextManager[DecodedImage]:
        deadline._at = 0.0
        return decoded(data, limits)

    def detect_for_too_long(pixels: np.ndarray, smallest: float) -> list[Detection]:
        deadline._at = 0.0
        return OnnxEngine._detect(engine, pixels, smallest)

    def too_late(*_: object) -> None:
        pytest.fail("went on after the deadline")

    if stage == "decode":
        monkeypatch.setattr(analysis_module, "decoded", decode_for_too_long)
        monkeypatch.setattr(engine, "_detect", too_late)
    else:
        monkeypatch.setattr(engine, "_detect", detect_for_too_long)
        monkeypatch.setattr(engine._aligner, "align", too_late)
    with pytest.raises(DeadlineExceeded):
        engine.analyse(photo("obama.jpg"), deadline)


# -- for weeks --


def test_nothing_leaks(engine: Engine, photo: Photo) -> None:
    good = [photo(name) for name in ("obama2.jpg", "biden.jpg", "32bit.png")]
    large = encode(Image.effect_noise((2400, 1800), 60).convert("RGB"), "JPEG")
    bad = good[0][: len(good[0]) // 2]
    process = psutil.Process()

    def rounds(count: int) -> None:
        for _ in range(count):
            for data in (*good, large):
                analyse(engine, data)
            with pytest.raises(ImageCorrupt):
                analyse(engine, bad)
        gc.collect()

    rounds(4)  # allocators and caches reach their size
    files, threads, memory = process.num_fds(), process.num_threads(), process.memory_info().rss
    rounds(12)
    assert process.num_fds() <= files
    assert process.num_threads() <= threads
    # one kept copy of the large image alone would be 12 rounds of 13 MB
    assert process.memory_info().rss - memory < 60 * 2**20
