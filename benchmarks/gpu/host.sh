#!/usr/bin/env bash
# Takes benchmarks.gpu to a CUDA host that cannot fetch anything (docs/how-to/gpu-figures.md).
#
#   benchmarks/gpu/host.sh pack PACK.tgz             where packages can be had
#   benchmarks/gpu/host.sh run PACK.tgz OUT [...]    on the host, in a checkout; the rest goes to
#                                                    python -m benchmarks.gpu
#
# PYTHON_VERSION (3.12) and CUDA (130, as in 13.0) are the host's; MOST_MIB (64) is what the pack
# may take.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
site=$(mktemp -d)
trap 'rm -rf -- "$site"' EXIT

pack() { # PACK
  local platform platforms=()
  for platform in manylinux_2_{34,28,27,24,17}_x86_64 manylinux2014_x86_64 manylinux1_x86_64; do
    platforms+=(--platform "$platform")
  done
  python3 -m pip install --quiet --no-deps --no-compile --target "$site" \
    --only-binary=:all: --implementation cp --python-version "${PYTHON_VERSION:-3.12}" \
    "${platforms[@]}" -c "$root/images/trainer/requirements-cpu.txt" \
    -r "$root/benchmarks/gpu/host.txt"
  # Of the largest wheels what is not needed: other versions of CUDA, and a web application.
  local library=libbitsandbytes_cuda${CUDA:-130}.so
  [[ -e $site/bitsandbytes/$library ]] ||
    { echo "bitsandbytes has no $library" >&2; return 1; }
  find "$site/bitsandbytes" -name 'libbitsandbytes_*.so' \
    ! -name "$library" ! -name libbitsandbytes_cpu.so -delete
  rm -rf "$site/studio" "$site/bin"
  # Only its vocabulary.
  find "$site/dashscope" -type f ! -name qwen.tiktoken ! -name __init__.py -delete
  tar -czf "$1" -C "$site" .
  local bytes
  bytes=$(stat -c %s "$1")
  echo "$1: $((bytes >> 20)) MiB"
  (( bytes <= ${MOST_MIB:-64} << 20 )) || { echo "that is too much" >&2; return 1; }
}

run() { # PACK OUT [ARGUMENT...]
  tar -xzf "$1" -C "$site"
  PYTHONPATH=$root:$site PYTHONUNBUFFERED=1 python3 -m benchmarks.gpu --out "$2" "${@:3}"
}

case "${1:-}" in
  pack | run) "$@" ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
