"""HTTP translated to use cases and back: nothing is decided here."""
