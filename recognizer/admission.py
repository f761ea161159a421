"""What may be enrolled: faces that are good evidence, and nobody else's.

A face that is near-certainly another person's is refused, for it would poison both; a mere likeness, which relatives
and chance bring about, is told as a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from recognizer import evidence
from recognizer.config import Settings
from recognizer.decisions import TargetRule, flaws, is_rejected
from recognizer.errors import BelongsToOther, FaceTooSmall, LowQuality
from recognizer.faces import Face, Neighbour, Neighbourhood, NewFace, PersonRef, Remark

OTHERS_FPIR: Final = 0.0003
"""So many faces of new people may be refused as somebody else's: 1 of 3,000, whatever the size of the gallery."""

OTHERS_LEAD: Final = 0.1
"""By so much a face of somebody who is enrolled must score higher with another person to be refused."""

UNLIKE: Final = 0.1
"""Likeness to every other photo of the person below which it may be somebody else: 1 of 100 genuine pairs of photos are
below, and 7 of 10 of different people (LFW)."""

Whose = Callable[[Neighbour], bool]
"""Whether a neighbour is the person to be enrolled."""


class Admission(NamedTuple):
    """What of the faces of an enrolment may be stored."""

    admitted: list[NewFace]
    refused: list[Remark]
    warnings: list[Remark]


def check_quality(index: int, face: Face, settings: Settings) -> None:
    """Refuse a face that is poor evidence.

    Raises:
        FaceTooSmall, LowQuality
    """
    smallest = settings.enrol_min_face_pixels
    if face.box.width < smallest:
        raise FaceTooSmall(
            f"The face in photo {index} is {face.box.width} pixels wide; at least {smallest} are needed."
        )
    if face.quality.score < settings.enrol_min_quality:
        raise LowQuality(
            f"The face in photo {index} is {flaws(face.quality)} (quality {face.quality.score:.2f}, at least "
            f"{settings.enrol_min_quality:g} is needed); send a better photo, or force=true to enrol it all the same.",
            face.quality.issues,
        )


def admit(faces: Sequence[NewFace], around: Neighbourhood, whose: Whose, target_fpir: float, force: bool) -> Admission:
    """Part the faces of one person into those to be stored and those that are near-certainly somebody else's.

    Args:
        faces: what is to be enrolled.
        around: who is near each of them, in the same order.
        whose: tells the person to be enrolled among them.
        target_fpir: from which likeness on a warning is given.
        force: refuse nothing, and warn.
    """
    done = Admission([], [], [])
    sure, likely = (TargetRule(rate, around.people, around.shift) for rate in (OTHERS_FPIR, target_fpir))
    alike_to_own: list[float] = []
    for face, near in zip(faces, around.of_probes, strict=True):
        rival = _best_other(likely.scores(face.embedding, near), near, whose)
        if rival and rival.score >= sure.needed and rival.lead >= OTHERS_LEAD and not force:
            done.refused.append(Remark(face.index, BelongsToOther.code, _belongs(face.index), rival.person))
            continue
        done.admitted.append(face)
        alike_to_own.append(max((each.likeness for each in near if whose(each)), default=-np.inf))
        if rival and rival.score >= likely.needed and rival.lead >= 0:
            detail = f"Photo {face.index} is like another person, who is enrolled; look whether they are the same."
            done.warnings.append(Remark(face.index, "resembles_other_person", detail, rival.person))
        if any(whose(each) and is_rejected(each) for each in near):
            done.warnings.append(Remark(face.index, "rejected_before", _rejected(face.index)))
    done.warnings.extend(_unlike_the_others(done.admitted, alike_to_own))
    return done


class _Rival(NamedTuple):
    """Another person, what they score with a face, and how much more that is than the person to be enrolled scores."""

    person: PersonRef
    score: float
    lead: float


def _best_other(scores: Sequence[float], near: Sequence[Neighbour], whose: Whose) -> _Rival | None:
    own = max((score for score, each in zip(scores, near, strict=True) if whose(each)), default=-np.inf)
    others = [pair for pair in zip(scores, near, strict=True) if not (whose(pair[1]) or is_rejected(pair[1]))]
    if not others:
        return None
    score, other = max(others, key=lambda pair: pair[0])
    return _Rival(PersonRef(other.person_id, other.name), score, score - own)


def _belongs(index: int) -> str:
    return (
        f"The face in photo {index} is almost certainly that of another person, who is enrolled already; add it to "
        "that person, or send force=true if these are two people."
    )


def _rejected(index: int) -> str:
    return f"Photo {index} is like a face that was said not to be this person's; undo that rejection if it is."


def _unlike_the_others(faces: Sequence[NewFace], alike_to_own: Sequence[float]) -> list[Remark]:
    """Warnings about photos that are like no other of the person, in the gallery or in the same request.

    `alike_to_own` is the likeness of each face to what is enrolled of the person, -inf where nothing is.
    """
    units = evidence.unit(np.array([face.embedding for face in faces])) if faces else np.zeros((0, 1), np.float32)
    alike = units @ units.T
    np.fill_diagonal(alike, -np.inf)
    detail = "Photo {} is not like the person's other photos; look whether it is the same person."
    return [
        Remark(face.index, "unlike_other_photos", detail.format(face.index))
        for face, best in zip(faces, np.maximum(alike.max(axis=1, initial=-np.inf), alike_to_own), strict=True)
        if np.isfinite(best) and best < UNLIKE
    ]
