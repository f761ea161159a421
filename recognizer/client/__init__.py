"""A client of the recognizer for Python: typed answers, retries that are safe, many photos in a stream.

    from recognizer.client import Recognizer

    with Recognizer("http://127.0.0.1:8000", key="rk_...") as recognizer:
        recognizer.enroll(["ada1.jpg", "ada2.jpg"], name="Ada")
        for face in recognizer.recognize("who.jpg").faces:
            print(face.decision, face.person and face.person.name)

Importing it imports nothing of the service: no models, no database, no web framework.
"""

from recognizer.client.answers import (
    BatchError,
    Box,
    Candidate,
    Collection,
    CollectionErasure,
    CountedPerson,
    Detection,
    EnrolledFace,
    Enrolment,
    Erasure,
    FoundFace,
    ImageFacts,
    Merger,
    Person,
    PersonDetails,
    PersonRef,
    Point,
    Quality,
    Recognition,
    Remark,
    SeenFace,
    StoredFace,
    Verification,
)
from recognizer.client.errors import RecognizerClientError, Unreachable
from recognizer.client.images import Image
from recognizer.client.recognizer import Recognizer

__all__ = [
    "BatchError",
    "Box",
    "Candidate",
    "Collection",
    "CollectionErasure",
    "CountedPerson",
    "Detection",
    "EnrolledFace",
    "Enrolment",
    "Erasure",
    "FoundFace",
    "Image",
    "ImageFacts",
    "Merger",
    "Person",
    "PersonDetails",
    "PersonRef",
    "Point",
    "Quality",
    "Recognition",
    "Recognizer",
    "RecognizerClientError",
    "Remark",
    "SeenFace",
    "StoredFace",
    "Unreachable",
    "Verification",
]
