"""Moving people out of a gallery and into one: exports, and encodings of face_recognition; see docs/moving.md."""
