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
from recognizer.decisions import IN_WORDS, TargetRule, is_rejected
from recognizer.errors import BelongsToOther, FaceTooSmall, LowQuality, Refusal
from recognizer.faces import Face, Neighbour, Neighbourhood, NewFace, Remark

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
    refused: list[Refusal]
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
        flaws = (
            " and ".join(IN_WORDS[issue] for issue in face.quality.issues if issue in IN_WORDS) or "hard to make out"
        )
        raise LowQuality(
            f"The face in photo {index} is {flaws} (quality {face.quality.score:.2f}, at least "
            f"{settings.enrol_min_quality:g} is needed); send a better photo, or force=true to enrol it all the same."
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
    for face, near in zip(faces, around.of_probes, strict=True):
        other, lead = _best_other(face, near, around, whose)
        sure = TargetRule(OTHERS_FPIR, around.people, around.shift).needed
        if other and lead.score >= sure and lead.ahead >= OTHERS_LEAD and not force:
            done.refused.append(Refusal(face.index, BelongsToOther.code, _belongs(face, other), other.name))
            continue
        done.admitted.append(face)
        if other and lead.score >= TargetRule(target_fpir, around.people, around.shift).needed and lead.ahead >= 0:
            detail = f"Photo {face.index} is like {other.name}, who is enrolled; look whether it is the same person."
            done.warnings.append(Remark(face.index, "resembles_other_person", detail, other.name))
        done.warnings.extend(_rejected_before(face, near, whose))
    return done._replace(warnings=done.warnings + unlike_each_other(done.admitted, around, whose, faces))


def _rejected_before(face: NewFace, near: Sequence[Neighbour], whose: Whose) -> list[Remark]:
    """A warning about a face that was said not to be the person's: it goes on not being recognised as that person."""
    if not any(whose(each) and is_rejected(each) for each in near):
        return []
    detail = f"Photo {face.index} is like a face that was said not to be this person's; undo that rejection if it is."
    return [Remark(face.index, "rejected_before", detail)]


class _Lead(NamedTuple):
    """The best other person's score, and by how much it is above that of the person to be enrolled."""

    score: float
    ahead: float


def _best_other(
    face: NewFace, near: Sequence[Neighbour], around: Neighbourhood, whose: Whose
) -> tuple[Neighbour | None, _Lead]:
    scores = TargetRule(OTHERS_FPIR, around.people, around.shift).scores(face.embedding, near) if near else []
    others = [(score, each) for score, each in zip(scores, near, strict=True) if not (whose(each) or is_rejected(each))]
    own = max((score for score, each in zip(scores, near, strict=True) if whose(each)), default=-np.inf)
    if not others:
        return None, _Lead(-np.inf, -np.inf)
    score, other = max(others, key=lambda pair: pair[0])
    return other, _Lead(score, score - float(own))


def _belongs(face: NewFace, other: Neighbour) -> str:
    return (
        f"The face in photo {face.index} is almost certainly {other.name}'s, who is enrolled already; add it to that "
        "person, or send force=true if these are two people."
    )


def unlike_each_other(
    admitted: Sequence[NewFace], around: Neighbourhood, whose: Whose, faces: Sequence[NewFace]
) -> list[Remark]:
    """Warnings about photos that are not like the person's others, in the gallery or in the same request."""
    units = {face.index: evidence.unit(face.embedding) for face in admitted}
    own = {
        face.index: [each.likeness for each in near if whose(each)]
        for face, near in zip(faces, around.of_probes, strict=True)
    }
    warnings = []
    for face in admitted:
        rest = [other for index, other in units.items() if index != face.index]
        alike = [float(units[face.index] @ other) for other in rest] + own[face.index]
        if alike and max(alike) < UNLIKE:
            detail = f"Photo {face.index} is not like the person's other photos; look whether it is the same person."
            warnings.append(Remark(face.index, "unlike_other_photos", detail))
    return warnings
