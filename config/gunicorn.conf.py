"""gunicorn itself. The service's own settings are in recognizer.toml; this file is for the rest.

Every option of https://docs.gunicorn.org/en/stable/settings.html may be set below by its name. `recognizer serve`
reads this file last, so it wins. After a change: `kill -HUP` the supervisor or gunicorn's master; the old workers serve
until the new ones do.

Without the supervisor, over a database that `recognizer migrate` has prepared:

    RECOGNIZER_DATABASE_URL=... gunicorn -c config/gunicorn.conf.py 'recognizer.app:create_app()'
"""

from recognizer.config import load
from recognizer.servers.linux import gunicorn_options

globals().update(gunicorn_options(load()))  # what `recognizer serve` would use

# For example, behind a load balancer that keeps connections open for five minutes:
# keepalive = 320
