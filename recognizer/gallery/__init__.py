"""Faces and people in PostgreSQL: all SQL of the service; it knows no pixels and no HTTP."""
