"""Calibration: what to expect from the people who are enrolled, and what to mend. No SQL, no HTTP."""

from recognizer.calibration.report import Report, calibrate

__all__ = ["Report", "calibrate"]
