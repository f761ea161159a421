#!/bin/sh
# Resolve the requirements anew and write the lock files (needs `uv`; UPGRADE=1 also takes newer versions).
# Every package is pinned with its hashes for all platforms; no package index is named.
set -eu
cd "$(dirname "$0")/.."
compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        ${UPGRADE:+--upgrade} "$@"
}
compile pyproject.toml --extra reference -o requirements/service.lock
compile pyproject.toml --extra reference --group dev -c requirements/service.lock -o requirements/dev.lock
echo "setuptools" | compile - -c requirements/service.lock -o requirements/build.lock
