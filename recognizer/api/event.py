"""POST /v1/recognize/event: several frames of one scene, one answer for each person seen."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue

from recognizer.api import observation, shapes, uploads
from recognizer.api.auth import allowed_collection, request_deadline, route, runtime
from recognizer.api.problems import remark
from recognizer.api.v1 import IdentifyOptions
from recognizer.scene import Scene

MAX_FRAMES = 32


def blueprint() -> Blueprint:
    """Recognising over several frames."""
    event = Blueprint("event", __name__)
    route(event, "/recognize/event", recognize_event, methods=["POST"], scope="recognize")
    return event


def recognize_event() -> ResponseReturnValue:
    """Find the people of one scene, shown in several frames, and say who they are."""
    deadline = request_deadline()
    upload = uploads.read(request, max_images=MAX_FRAMES)
    options = uploads.options_as(IdentifyOptions, upload.options)
    scene = runtime().scenes.recognize(
        upload.images,
        allowed_collection(options.collection),
        deadline,
        threshold=options.threshold,
        top_k=options.top_k,
        min_face_pixels=options.min_face_pixels,
        min_revision=options.min_revision,
    )
    observation.note_recognition(scene.people, runtime().metrics, "/recognize/event")
    observation.note(frames=len(upload.images), refused_frames=len(scene.refused))
    return {"request_id": g.request_id, **scene_body(scene, options.top_k, options.include)}


def scene_body(scene: Scene, top_k: int, include: Collection[str]) -> dict[str, Any]:
    """The answer, without its request id: a person's box, landmarks and quality are those of their best face."""
    people = []
    for seen, track in zip(scene.people.seen, scene.tracks, strict=True):
        sightings = [
            {
                "frame": frame,
                "box": shapes.box(face.box),
                "detection_score": round(face.detection_score, 4),
                "quality": shapes.quality(face.quality),
            }
            for frame, face in track.sightings
        ]
        people.append({"frame": track.best.frame, **shapes.seen_face(seen, top_k, include), "sightings": sightings})
    body: dict[str, Any] = {
        "collection": scene.people.collection,
        "gallery_revision": scene.people.revision,
        "frames": [
            {"index": number, "width": frame.width, "height": frame.height, "format": frame.format}
            for number, frame in scene.frames.items()
        ],
        "refused": [remark(each) for each in scene.refused],
        "people": people,
    }
    if "timings" in include:
        body["timings_ms"] = {stage: round(ms, 2) for stage, ms in scene.people.timings_ms.items()}
    return body
