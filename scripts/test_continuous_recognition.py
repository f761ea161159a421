#!/usr/bin/env python3
"""Recognise photos for minutes or hours: is every answer right, does memory stay flat, how fast is it?

  python scripts/test_continuous_recognition.py                      the service on port 8000, else one of its own
  python scripts/test_continuous_recognition.py --url http://camera-server:8000 --key KEY --minutes 60
  python scripts/test_continuous_recognition.py --faults --hours 24          break things meanwhile, in its own service
  python scripts/test_continuous_recognition.py --plot soak-report.json      only draw picture and page of a report

It talks HTTP and may be copied to another machine with Python 3.11 or newer, with the folder `soak` beside it and
nothing else. What is installed is used, what is not is done without, saying so: psutil (processes of this machine),
Pillow (photos in many formats and sizes), matplotlib (the picture). People are enrolled as soak-<random>-<number> and
erased at the end.

Recognition: a photo that is recognised at rest must get the same person, at the same distance, under load.
Memory: the second half of the run is judged, the first is warm-up. A leak is a growth that is statistically clear
(the lower end of the 95 % interval of the Theil-Sen slope is above 0), steady (over four quarters of the second half
the medians rise each time, and evenly: what comes in steps or levels off is warm-up) and material (over 20 MB and
5 %, more in runs under a minute). A replaced process begins a curve of its own. Threads, file descriptors and
database connections must not grow steadily either.

With --faults, workers and the database are killed, frozen and cut off, uploads aborted, clients multiplied; people come
and go, and a ledger knows who has to be there. docs/operations.md says what is asked. It takes a checkout and psutil.
The report is JSON, with a picture and a page (HTML) beside it.

Exit code: 0 passed; 1 something is wrong, the last line says what; 2 wrong usage; 130 stopped by Ctrl-C (or
SIGTERM) before the end: the report so far is written and the people are erased.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # with `python -I` it is not there

from soak.command import call

if __name__ == "__main__":
    sys.exit(call(__doc__ or ""))
