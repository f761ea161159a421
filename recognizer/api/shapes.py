"""The JSON shapes of the native API, made from the domain's words."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from recognizer.api import answers, records
from recognizer.api.problems import remark
from recognizer.decisions import Candidate
from recognizer.faces import Analysis, Box, Face, Person, Quality, Rejection, StoredFace
from recognizer.gallery.store import CollectionErasure, CollectionOverview, Enrolment, Erasure, Merger, PersonDetails
from recognizer.service import Recognition, Seen


def recognition(found: Recognition, top_k: int, include: Collection[str]) -> answers.Recognition:
    """The answer of /recognize, without its request id."""
    return {
        "collection": found.collection,
        "gallery_revision": found.revision,
        "image": image(found.analysis),
        "faces": [seen_face(seen, top_k, include) for seen in found.seen],
        **timings(found.timings_ms, include),
    }


def timings(stages_ms: Mapping[str, float], include: Collection[str]) -> answers.Timed:
    """How long the stages took, where that is asked for."""
    return {"timings_ms": rounded(stages_ms)} if "timings" in include else {}


def rounded(stages_ms: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds by stage."""
    return {stage: round(ms, 2) for stage, ms in stages_ms.items()}


def image(of: Analysis) -> answers.ImageFacts:
    """An image as it was sent; its size is that of the upright one."""
    return {"width": of.width, "height": of.height, "format": of.format}


def found_face(face: Face, include: Collection[str]) -> answers.FoundFace:
    """A face in an image, by itself."""
    body: answers.FoundFace = {
        "box": box(face.box),
        "detection_score": round(face.detection_score, 4),
        "quality": quality(face.quality),
    }
    if "landmarks" in include:
        body["landmarks"] = [{"x": x, "y": y} for x, y in face.landmarks]
    if "embedding" in include:
        body["embedding"] = [float(value) for value in face.embedding]
    return body


def seen_face(seen: Seen, top_k: int, include: Collection[str]) -> answers.SeenFace:
    """One face of a photo with its decision."""
    face, verdict = seen
    best = verdict.best
    return {
        **found_face(face, include),
        "decision": verdict.decision,
        "person": _who(best) if best and verdict.decision == "match" else None,
        "distance": round(best.neighbour.distance, 6) if best else None,
        "threshold": round(best.threshold, 6) if best else None,
        "confidence": round(best.confidence, 6) if best else None,
        "margin": round(verdict.margin, 6) if verdict.margin is not None else None,
        "matched_face_id": best.neighbour.face_id if best else None,
        "candidates": [
            {
                "person": _who(candidate),
                "distance": round(candidate.neighbour.distance, 6),
                "confidence": round(candidate.confidence, 6),
            }
            for candidate in verdict.candidates[:top_k]
        ],
        "reasons": list(verdict.reasons),
    }


def enrolment(done: Enrolment) -> answers.Enrolment:
    """The answer of /enroll, without its request id."""
    return {
        "person": {"id": done.person_id, "name": done.name, "faces": done.faces},
        "gallery_revision": done.revision,
        "enrolled": [
            {"index": f.index, "face_id": f.face_id, "box": box(f.box), "quality": quality(f.quality)}
            for f in done.enrolled
        ],
        "refused": [remark(each) for each in done.refused],
        "warnings": [remark(each) for each in done.warnings],
    }


def person(stored: Person) -> records.Person:
    """A person in a listing; `faces` is a count."""
    return {
        "id": stored.id,
        "collection": stored.collection,
        "name": stored.name,
        "external_id": stored.external_id,
        "metadata": dict(stored.metadata),
        "faces": stored.faces,
        "created_at": stored.created_at.isoformat(),
    }


def person_details(found: PersonDetails) -> records.PersonDetails:
    """A person with the faces that are stored."""
    return {**person(found.person), "faces": [stored_face(face) for face in found.faces]}


def merger(done: Merger) -> records.Merger:
    """What came of merging two people, without its request id."""
    return {
        "person": person_details(done.into),
        "merged": done.merged_id,
        "moved": done.moved,
        "dropped": done.dropped,
        "gallery_revision": done.revision,
    }


def stored_face(face: StoredFace) -> records.StoredFace:
    """A face in the gallery."""
    return {
        "id": face.id,
        "box": box(face.box),
        "quality": quality(face.quality),
        "model_id": face.model_id,
        "photo": face.photo,
        "created_at": face.created_at.isoformat(),
    }


def erasure(erased: Erasure) -> records.Erasure:
    """The receipt of a deletion."""
    return {
        "person_id": erased.person_id,
        "deleted": dict(erased.deleted),
        "left": erased.left,
        "gallery_revision": erased.revision,
    }


def collection_erasure(erased: CollectionErasure) -> records.CollectionErasure:
    """The receipt of a collection's deletion; without a revision, where the collection is no more."""
    return {
        "collection": erased.name,
        "deleted": dict(erased.deleted),
        "left": erased.left,
        "revoked_keys": erased.revoked_keys,
        "gallery_revision": erased.revision,
    }


def rejection(kept: Rejection) -> records.Rejection:
    """A face that was said not to be a person's."""
    return {
        "id": kept.id,
        "model_id": kept.model_id,
        "created_at": kept.created_at.isoformat(),
        "created_by": kept.created_by,
    }


def collection(of: CollectionOverview) -> records.Collection:
    """A collection, what is set for it (null: as in the settings) and how much it holds."""
    return {
        "name": of.collection.name,
        "target_fpir": of.collection.target_fpir,
        "threshold": of.collection.threshold,
        "keep_photos": of.collection.keep_photos,
        "retention_days": of.collection.retention_days,
        "encrypt_embeddings": of.collection.encrypt_embeddings,
        "people": of.people,
        "faces": of.faces,
        "photos": of.photos,
        "gallery_revision": of.collection.revision,
        "created_at": of.created_at.isoformat(),
    }


def box(of: Box) -> answers.Box:
    """A rectangle in pixels of the upright image."""
    return {"left": of.left, "top": of.top, "right": of.right, "bottom": of.bottom}


def quality(of: Quality) -> answers.Quality:
    """How good a face is as evidence."""
    return {"score": round(of.score, 4), "issues": list(of.issues)}


def _who(candidate: Candidate) -> answers.PersonRef:
    return {"id": candidate.neighbour.person_id, "name": candidate.neighbour.name}
