"""A face-recognition service that people can leave running."""

__version__ = "0.1.0"
