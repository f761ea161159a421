"""POST /v1/recognize/event: several frames of one scene, one answer for each person seen."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, NotRequired

from flask import Blueprint, g
from pydantic import Field
from typing_extensions import TypedDict

from recognizer.api import answers, observation, shapes
from recognizer.api.auth import allowed_collection, request_deadline, route, runtime
from recognizer.api.operations import SEALED
from recognizer.api.problems import remark
from recognizer.api.takes import Images
from recognizer.api.v1 import IdentifyOptions
from recognizer.errors import CollectionNotFound, FramesRefused
from recognizer.scene import Scene

MAX_FRAMES = 32


class Frame(answers.ImageFacts):
    """A frame that could be read."""

    index: Annotated[int, Field(description="Which image of the request, counted from 0.")]


class Sighting(TypedDict):
    """A person's face in one frame."""

    frame: int
    box: answers.Box
    detection_score: float
    quality: answers.Quality


class SeenPerson(answers.SeenFace):
    """A person of the scene, decided about once; box, quality and landmarks are those of the best frame."""

    frame: Annotated[int, Field(description="The best frame.")]
    sightings: Annotated[list[Sighting], Field(description="In the order of the frames, at most one in each.")]


class SceneAnswer(answers.Answered, answers.Revised):
    """Who is in a scene."""

    collection: str
    frames: list[Frame]
    refused: Annotated[list[answers.Remark], Field(description="Frames that cannot be read, or show no face.")]
    people: Annotated[list[SeenPerson], Field(description="In the order in which they come into the scene.")]
    timings_ms: NotRequired[Annotated[dict[str, float], Field(description="Per stage, when included.")]]


def blueprint() -> Blueprint:
    """Recognising over several frames."""
    event = Blueprint("event", __name__)
    route(
        event,
        "/recognize/event",
        recognize_event,
        methods=["POST"],
        scope="recognize",
        takes=Images(IdentifyOptions, at_most=MAX_FRAMES),
        answers={200: SceneAnswer},
        errors=(CollectionNotFound, FramesRefused, *SEALED),
    )
    return event


def recognize_event(images: tuple[bytes, ...], options: IdentifyOptions) -> SceneAnswer:
    """Find the people of one scene, shown in several frames, and say who they are.

    Faces are linked over the frames, which come in order, and each person has one answer. Nobody is in a frame twice.
    A frame that cannot be read, or shows no face, is told of in `refused`.
    """
    scene = runtime().scenes.recognize(
        images,
        allowed_collection(options.collection),
        request_deadline(),
        options.terms,
    )
    observation.note_recognition(scene.people, runtime().metrics, "/recognize/event", image=None)
    observation.note(frames=len(images), refused_frames=len(scene.refused))
    answer: SceneAnswer = {
        "request_id": g.request_id,
        "collection": scene.people.collection,
        "gallery_revision": scene.people.revision,
        "frames": [
            {"index": number, "width": frame.width, "height": frame.height, "format": frame.format}
            for number, frame in scene.frames.items()
        ],
        "refused": [remark(each) for each in scene.refused],
        "people": seen_people(scene, options.top_k, options.include),
    }
    if "timings" in options.include:
        answer["timings_ms"] = {stage: round(ms, 2) for stage, ms in scene.people.timings_ms.items()}
    return answer


def seen_people(scene: Scene, top_k: int, include: Collection[str]) -> list[SeenPerson]:
    """Everybody in the scene."""
    people: list[SeenPerson] = []
    for seen, track in zip(scene.people.seen, scene.tracks, strict=True):
        sightings: list[Sighting] = [
            {
                "frame": frame,
                "box": shapes.box(face.box),
                "detection_score": round(face.detection_score, 4),
                "quality": shapes.quality(face.quality),
            }
            for frame, face in track.sightings
        ]
        people.append({**shapes.seen_face(seen, top_k, include), "frame": track.best.frame, "sightings": sightings})
    return people
