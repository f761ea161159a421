"""Bytes to faces; no HTTP, no SQL."""

import os

# ONNX Runtime keeps a database in the user's home and reports its use to its maker, unless this is set before it is
# imported (its Privacy.md, "Disabling Telemetry"). A service that sees faces tells nobody anything.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
