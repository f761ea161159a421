"""`python -m recognizer` is the command line of `recognizer.cli`."""

from recognizer.cli import main

main()
