#!/usr/bin/env bash
# Print the first Python that HSSM supports, on the PATH or of pyenv; fail, and say so loudly, if there is none.
set -eu
for version in 3.12 3.13; do
    for candidate in "$(command -v "python$version" || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
        if [ -x "$candidate" ] && "$candidate" -c "import sys, venv; sys.exit('$version' != '%d.%d' % sys.version_info[:2])" 2>/dev/null; then
            echo "tests in HSSM: $("$candidate" --version), $candidate" >&2
            echo "$candidate"
            exit 0
        fi
    done
done
echo "SKIPPED: tests in HSSM. No Python 3.12 or 3.13 on the PATH or in pyenv, which HSSM needs." >&2
exit 1
