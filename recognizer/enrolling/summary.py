"""What a mass enrolment says at its end: what was done, what was not, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from recognizer.enrolling.report import Report

DONE = {
    "enrolled": "enrolled",
    "already_enrolled": "enrolled before",
    "would_enrol": "would be enrolled",
    "refused": "refused",
    "failed": "failed",
    "skipped": "skipped",
}

NEXT = {
    "multiple_faces": "several faces in a photo; --largest-face enrols the largest of each, or crop them",
    "no_face": "no face that can be found; take sharper photos from the front",
    "low_quality": "poor evidence, the report says why; take better photos, or enrol single ones with force=true",
    "face_too_small": "too small a face; take larger photos, or lower enrol_min_face_pixels",
    "face_belongs_to_other_person": "almost certainly somebody else's face, who is enrolled; look whether it lies in "
    "the wrong place, or whether two names are one person (then merge them)",
    "image_corrupt": "damaged or incomplete; copy it again",
    "image_unsupported": "no image that can be read; convert HEIC and AVIF to JPEG",
    "image_too_large": "too large; make it smaller, or raise max_image_bytes or max_image_pixels",
    "no_person": "in no person's folder; put it into one",
    "link_outside": "a link that leads out of the folder; copy the photo itself",
    "link_to_folder": "a link to a folder, which is not followed; copy the folder",
    "broken_link": "a link to nothing; copy the photo itself",
    "unreadable": "cannot be read; the report says why",
    "invalid_name": "a name that no person can have (1 to 200 characters, no control characters); rename the folder",
    "photo_gone": "not in CompreFace any more, or it keeps none (SAVE_IMAGES_TO_DB=false); use the original photo",
    "changed_meanwhile": "a subject that was changed while it was read; run the command again",
    "no_photos": "a subject without photos",
    "photo_not_found": "no photo in the file; enrol these people's photos",
    "deadline_exceeded": "took too long; run the command again, or use smaller photos",
    "internal_error": "the service failed; its log says why",
    "not_a_photo": "no photo by its name",
}
"""What is to be done about a reason in the report."""


def summary(report: Report) -> Iterator[str]:
    """Lines for the end, the figures first; then what to do about each reason, the most frequent first."""
    counts = [f"{report.statuses[status]:,} {words}" for status, words in DONE.items() if report.statuses[status]]
    yield f"{', '.join(counts) or 'There was nothing to enrol'}. Report: {report.path}"
    for reason, count in report.reasons.most_common():
        if reason in NEXT:
            yield f"  {count:,} {reason}: {NEXT[reason]}."
