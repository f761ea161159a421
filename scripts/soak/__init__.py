"""The parts of `scripts/test_continuous_recognition.py`; each file has one job.

command   the options            run       one run, set up to report        siege     the same, with faults
"""
