#!/usr/bin/env bash
# builds/llama.cpp FOLDER VERSION: FOLDER/bin has llama-server and the tools
# that the gguf stage runs, FOLDER/app the converter with the modules it brings along.
#
# The source is llama.cpp's tree as vendored by the sdist of llama-cpp-python VERSION,
# which comes from the package index like everything else.
set -euo pipefail
folder=$1 version=$2

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python \
  --dest "$work" "llama-cpp-python==$version"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work" --strip-components=1
source=$work/vendor/llama.cpp

# No -march=native: the cache may be carried to another machine.
cmake -G Ninja -S "$source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
  -DGGML_NATIVE=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF >"$work/log"
programs=(llama-imatrix llama-quantize llama-server)
cmake --build "$work/build" -j 2 --target "${programs[@]}" \
  >>"$work/log" || { tail -n 50 "$work/log" >&2; exit 1; }

mkdir -p "$folder/bin" "$folder/app"
for program in "${programs[@]}"; do
  strip -s -o "$folder/bin/$program" "$work/build/bin/$program"
done
cp -r "$source"/convert_*.py "$source/conversion" "$source/gguf-py" \
  "$source/.devops/tools.sh" "$folder/app"
