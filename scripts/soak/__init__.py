"""The parts of `scripts/test_continuous_recognition.py`; each file has one job.

command     the options, and the way of one call
run         a run without faults          siege       the same with faults, a service of its own and a ledger
load        its clients                   crew        its clients             faultlog    what was broken when
                                          ledger      what was acknowledged   harm        the faults themselves
photos      the album                     witness     judges each answer      saboteur    does them at random times
forms       formats and ways to send      audit       the ledger against      verdict     the criteria
guests      our people at rest                        the gallery
processes   memory, threads, files        slope       how memory grows        facts       machine, latencies
judging     leaks and wrong answers       console, picture, page, files       what people see
"""
