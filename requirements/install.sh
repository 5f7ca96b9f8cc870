#!/usr/bin/env bash
# Fill an environment from a lock: requirements/install.sh FOLDER LOCK [TORCH]
#
# FOLDER  virtual environment to create, or an existing environment (conda, venv) to fill
# LOCK    cpu, gpu, batch, bench or vllm-cpu: requirements/LOCK.lock, exact versions with hashes
# TORCH   pip arguments that choose the torch build: torch goes in first and this package last; none for batch
#
# Uses uv where present and pip otherwise; nothing outside FOLDER is changed. Works with bash 3.2 (macOS).
# What FOLDER/.ready* says no longer holds once something is installed: whoever calls this writes it when all is done.
set -euo pipefail
set -f # TORCH may hold a star
folder=$1 lock=$2 torch=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)

fail() { printf 'set-up: %s\n' "$@" >&2; exit 1; }

require_torch() { # refuse a TORCH that names no torch before anything is changed
    local word
    if [ "$lock" = batch ]; then return 0; fi
    for word in $torch; do
        case $word in torch | torch[=\<\>~!@[]* | torch-*.whl | */torch-*.whl) return 0 ;; esac
    done
    fail "TORCH=$torch names no torch; leave TORCH out, or give pip's arguments for a build: TORCH=\"torch==2.13.0\"."
}

find_python() { # print a Python from 3.11 to 3.13, or nothing
    local name
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
    for name in "$@"; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

create() {
    local python version
    if version=$("$folder/bin/python" -c 'import platform; print(platform.python_version())' 2>/dev/null); then
        fail "$folder holds Python $version, and 3.11 or later is needed; nothing was changed." \
            "Remove this folder, or name another: make VENV=FOLDER ..."
    fi
    if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ] && [ -n "$(ls -A "$folder")" ]; then
        fail "$folder exists and is no Python environment; nothing was changed. Name another: make VENV=FOLDER ..."
    fi
    python=$(find_python)
    if [ -n "${PYTHON:-}" ] && [ -z "$python" ]; then
        fail "PYTHON=$PYTHON is no Python from 3.11 to 3.13; name the program itself: PYTHON=/usr/bin/python3.12"
    elif command -v uv >/dev/null 2>&1; then
        uv venv --quiet --no-project --clear --python "${python:->=3.11,<3.14}" "$folder"
    elif [ -z "$python" ]; then
        fail "no Python from 3.11 to 3.13 among: python3 python3.13 python3.12 python3.11." \
            "Install one (Debian, Ubuntu: python3.11 and python3.11-venv; macOS: python@3.13 of Homebrew)," \
            "or install uv, which brings its own, or name one: make PYTHON=/path/to/python ..."
    elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        fail "$python lacks the modules venv and ensurepip." \
            "Install them (Debian, Ubuntu: the package python3.11-venv, with your version's number), or install uv."
    else
        "$python" -m venv --clear "$folder"
    fi
}

pip_setting() { # uv does not read pip's settings: print the one named, in uv's form
    python3 -m pip config get "global.$1" 2>/dev/null | tr -s ' \n' ',' | sed 's/^,*//; s/,*$//' || true
}

install() {
    if command -v uv >/dev/null 2>&1; then
        if [ ! -t 1 ]; then set -- --quiet "$@"; fi
        uv pip install --python "$folder/bin/python" "$@"
    else
        if [ ! -t 1 ]; then set -- -qq "$@"; fi # errors only
        "$folder/bin/python" -m pip --version >/dev/null 2>&1 || "$folder/bin/python" -m ensurepip >/dev/null 2>&1 ||
            fail "$folder has no pip, as a set-up that was killed leaves it; remove this folder and try again."
        "$folder/bin/python" -m pip install --disable-pip-version-check "$@"
    fi
}

case $(uname -s) in Linux | Darwin) ;; *) fail "tested on Linux and macOS only; on Windows use WSL." ;; esac
require_torch
[ -f "$root/requirements/$lock.lock" ] || fail "no requirements/$lock.lock; LOCK is cpu, gpu, batch or vllm-cpu."
"$folder/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || create
if command -v uv >/dev/null 2>&1; then
    links=${UV_FIND_LINKS:-$(printf %s "${PIP_FIND_LINKS:-}" | tr -s ' ' ',')}
    links=${links:-$(pip_setting find-links)}
    if [ -n "$links" ]; then export UV_FIND_LINKS="$links"; fi
fi

find "$folder" -maxdepth 1 -name '.ready*' -exec rm -f {} +
if [ "$lock" != batch ]; then
    echo "set-up: $torch into $folder"
    # shellcheck disable=SC2086  # TORCH may hold several arguments
    install $torch || fail "TORCH=$torch cannot be installed (why: above); pytorch.org lists the builds."
fi
echo "set-up: requirements/$lock.lock into $folder"
# The lock is complete but for torch, so nothing is resolved here and every file is checked against its hash.
install --require-hashes --no-deps -r "$root/requirements/$lock.lock"
if [ "$lock" != batch ]; then
    install --no-deps --no-build-isolation -e "$root"
    "$folder/bin/python" - "$torch" <<'PYTHON'
import platform
import sys
from importlib.metadata import requires

from packaging.requirements import Requirement

try:
    import torch
except (ImportError, OSError) as error:
    sys.exit(f"set-up: TORCH={sys.argv[1]} has left no torch that can be imported ({error}); give another build.")
(needed,) = (r for r in map(Requirement, requires("opd-replication") or ()) if r.name == "torch")
if not needed.specifier.contains(torch.__version__, prereleases=True):
    sys.exit(f"set-up: TORCH={sys.argv[1]} is torch {torch.__version__}, and {needed} is needed; give such a build.")
build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
print(f"set-up: Python {platform.python_version()}, torch {torch.__version__} ({build})")
if torch.version.cuda and not torch.cuda.is_available():
    print("set-up: no GPU is visible; the CPU build is several GB smaller: see TORCH in `make help`")
PYTHON
fi
