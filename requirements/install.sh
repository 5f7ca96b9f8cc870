#!/usr/bin/env bash
# Fill an environment from a lock: requirements/install.sh FOLDER LOCK [TORCH]
#
# FOLDER  virtual environment to create, or an existing environment (conda, venv) to fill
# LOCK    cpu, gpu, batch, bench or vllm-cpu: requirements/LOCK.lock, exact versions with hashes
# TORCH   pip arguments that choose the torch build; given, torch goes in first and this package last
#
# Uses uv where present and pip otherwise; nothing outside FOLDER is changed. Works with bash 3.2 (macOS).
set -euo pipefail
set -f # TORCH may hold a star
folder=$1 lock=$2 torch=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)

fail() { printf 'set-up: %s\n' "$@" >&2; exit 1; }

find_python() { # print a Python >= 3.11, or nothing
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

create() {
    local python
    if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ] && [ -n "$(ls -A "$folder")" ]; then
        fail "$folder exists and is no Python environment; nothing was changed. Name another: make VENV=FOLDER ..."
    fi
    python=$(find_python)
    if [ -n "${PYTHON:-}" ] && [ -z "$python" ]; then
        fail "PYTHON=$PYTHON is no Python >= 3.11."
    elif command -v uv >/dev/null 2>&1; then
        uv venv --quiet --no-project --clear --python "${python:->=3.11,<3.14}" "$folder"
    elif [ -z "$python" ]; then
        fail "no Python >= 3.11 among: python3 python3.13 python3.12 python3.11." \
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
        "$folder/bin/python" -m pip install --disable-pip-version-check "$@"
    fi
}

case $(uname -s) in Linux | Darwin) ;; *) fail "tested on Linux and macOS only; on Windows use WSL." ;; esac
[ -f "$root/requirements/$lock.lock" ] || fail "no requirements/$lock.lock; LOCK is cpu, gpu, batch or vllm-cpu."
"$folder/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || create
if command -v uv >/dev/null 2>&1; then
    links=${UV_FIND_LINKS:-$(printf %s "${PIP_FIND_LINKS:-}" | tr -s ' ' ',')}
    links=${links:-$(pip_setting find-links)}
    if [ -n "$links" ]; then export UV_FIND_LINKS="$links"; fi
fi

if [ -n "$torch" ]; then
    echo "set-up: $torch into $folder"
    # shellcheck disable=SC2086  # TORCH may hold several arguments
    install $torch
fi
echo "set-up: requirements/$lock.lock into $folder"
# The lock is complete but for torch, so nothing is resolved here and every file is checked against its hash.
install --require-hashes --no-deps -r "$root/requirements/$lock.lock"
if [ -n "$torch" ]; then
    install --no-deps --no-build-isolation -e "$root"
    "$folder/bin/python" - <<'PYTHON'
import platform

import torch

build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
print(f"set-up: Python {platform.python_version()}, torch {torch.__version__} ({build})")
if torch.version.cuda and not torch.cuda.is_available():
    print("set-up: no GPU is visible; the CPU build is several GB smaller: see TORCH in `make help`")
PYTHON
fi
