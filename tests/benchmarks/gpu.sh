#!/usr/bin/env bash
# All that is worth knowing of featx on a GPU, in one command and under nine minutes.
#
#   tests/benchmarks/gpu.sh wheels FOLDER [PYTHON_VERSION]   where there is a network: fetch wheels
#   tests/benchmarks/gpu.sh run OUT [FOLDER]                 where the GPU is, without a network
#
# The machine has Python with torch, torchvision, Lightning and h5py. What else featx needs comes as
# the wheels of FOLDER. Without a GPU, everything runs small on the CPU, to show that it works.
# SECONDS_LEFT (540) bounds the whole run; what does not fit is said. OUT/gpu.json holds the figures.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/../.." && pwd)

fetch_wheels() {
  local version=${2:-3.12}
  local platforms=()
  for tag in 2_34 2_31 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${tag}_x86_64"); done
  platforms+=(--platform manylinux2014_x86_64)
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version "$version" \
    --implementation cp "${platforms[@]}" -d "$1" \
    jsonargparse docstring-parser typeshed-client importlib-resources av torchcodec
  ls -l "$1"
}

run() {
  local out=$1 wheels=${2:-}
  mkdir -p "$out"
  site=$(mktemp -d)  # also where the trap runs
  trap 'rm -rf "$site"' EXIT
  if [ -n "$wheels" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
      --target "$site" "$wheels"/*.whl
  fi
  # torchcodec wants the FFmpeg of a system. Where there is none, that of PyAV's wheel will do: its
  # libraries have names of their own, and the loader finds them by links with the usual ones.
  local library name
  mkdir -p "$site/ffmpeg"
  for library in "$site"/av.libs/lib{av,sw}*.so.*; do
    [ -e "$library" ] || continue
    name=$(basename "$library")
    ln -sf "$library" "$site/ffmpeg/${name%%-*}.so.$(sed 's/.*\.so\.\([0-9]*\).*/\1/' <<< "$name")"
  done
  export LD_LIBRARY_PATH="$site/ffmpeg:$site/av.libs:${LD_LIBRARY_PATH:-}"
  export PYTHONPATH="$checkout:$site:${PYTHONPATH:-}"
  python3 "$checkout/tests/benchmarks/gpu.py" "$out" --seconds "${SECONDS_LEFT:-540}"
}

case ${1:-} in
  wheels) fetch_wheels "${@:2}" ;;
  run) run "${@:2}" ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
