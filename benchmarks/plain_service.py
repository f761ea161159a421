"""The service that people write around face_recognition, for `throughput.py` to compare with.

    PLAIN_KNOWN=FOLDER gunicorn plain_service:app

Everybody in the folder is known by file name; a photo goes through the four calls that every tutorial shows.
"""

from __future__ import annotations

import os
from pathlib import Path

from _report import import_face_recognition, photos_in
from flask import Flask, request
from flask.typing import ResponseReturnValue

face_recognition = import_face_recognition()
app = Flask(__name__)


def known_people(folder: Path) -> tuple[list[str], list[object]]:
    """Names and encodings of the first face in every photo."""
    names, encodings = [], []
    for path in photos_in(folder):
        for encoding in face_recognition.face_encodings(face_recognition.load_image_file(path))[:1]:
            names.append(path.stem)
            encodings.append(encoding)
    return names, encodings


NAMES, ENCODINGS = known_people(Path(os.environ["PLAIN_KNOWN"]))


@app.get("/")
def live() -> ResponseReturnValue:
    return {"people": len(NAMES)}


@app.post("/recognize")
def recognize() -> ResponseReturnValue:
    picture = face_recognition.load_image_file(request.files["image"])
    locations = face_recognition.face_locations(picture)
    faces = []
    for location, encoding in zip(locations, face_recognition.face_encodings(picture, locations), strict=True):
        same = face_recognition.compare_faces(ENCODINGS, encoding, tolerance=0.6)
        person = NAMES[list(same).index(True)] if any(same) else None
        faces.append({"box": location, "person": person})
    return {"faces": faces}
