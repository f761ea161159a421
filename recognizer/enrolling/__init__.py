"""Many photos at once, from a folder or another service, into the gallery: `recognizer enroll` and `migrate-from`.

A source yields photos with the names of their people, an enroller remembers them, a report has a row for each.
"""
