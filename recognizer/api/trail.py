"""The route /v1/audit: who did what to whom, the newest first."""

from __future__ import annotations

import json
from datetime import UTC
from uuid import UUID

from flask import Blueprint
from pydantic import AwareDatetime, Field

from recognizer.api.auth import allowed_collection, only_collection, request_deadline, route, runtime
from recognizer.api.records import AuditEntry, AuditPage
from recognizer.api.takes import Query
from recognizer.api.uploads import Options
from recognizer.gallery.audit import Action
from recognizer.gallery.trail import MAX_PAGE, KeptEntry, TrailQuery


class TrailOptions(Options):
    collection: str | None = Field(None, min_length=1, max_length=100)
    person_id: UUID | None = None
    action: Action | None = None
    actor: str | None = Field(None, min_length=1, max_length=100)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    limit: int = Field(50, ge=1, le=MAX_PAGE)
    cursor: str | None = Field(None, max_length=4000)


def blueprint() -> Blueprint:
    """The audit trail."""
    audit = Blueprint("audit", __name__)
    route(
        audit,
        "/audit",
        list_audit,
        methods=["GET"],
        scope="admin",
        takes=Query(TrailOptions),
        answers={200: AuditPage},
    )
    return audit


def list_audit(options: TrailOptions) -> AuditPage:
    """A page of the audit trail, the newest entry first.

    A key of one collection sees that collection's entries alone.
    """
    query = TrailQuery(
        collection=only_collection() if options.collection is None else allowed_collection(options.collection),
        person_id=None if options.person_id is None else str(options.person_id),
        action=options.action,
        actor=options.actor,
        since=options.since,
        until=options.until,
    )
    found, next_cursor = runtime().trail.page(query, options.limit, options.cursor, request_deadline())
    return {"entries": [shape(kept) for kept in found], "next_cursor": next_cursor}


def shape(kept: KeptEntry) -> AuditEntry:
    """An entry as it is shown."""
    entry, stored = kept
    return {
        "number": entry.number,
        "at": entry.at.astimezone(UTC).isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "collection": entry.collection,
        "subject": None if entry.subject is None else entry.subject.hex(),
        "detail": json.loads(entry.detail),
        "request_id": entry.request_id,
        "hash": stored.hex(),
    }
