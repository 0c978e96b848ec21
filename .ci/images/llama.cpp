#!/usr/bin/env bash
# images/llama.cpp IMAGE BASE TOOLS: llama.cpp's tools in /app on top of BASE (which has
# torch), in the place of upstream's "full" image. TOOLS is made by builds/llama.cpp.
set -euo pipefail
image=$1 base=$2 tools=$3

context=$(mktemp -d)
trap 'rm -rf -- "$context"' EXIT
cp -r "$tools/bin" "$tools/app" "$context"

# Upstream pins older packages than these; the converter runs on both, and these are
# the versions that the merger writes its files with.
cat >"$context/Dockerfile" <<DOCKERFILE
FROM $base
RUN --mount=type=cache,target=/root/.cache/pip \\
    pip install --root-user-action=ignore \\
      transformers==5.17.0 safetensors==0.8.0 numpy==2.4.6 sentencepiece protobuf pyyaml tqdm
COPY app/ bin/ /app/
WORKDIR /app
ENTRYPOINT ["/app/tools.sh"]
DOCKERFILE
docker buildx build --quiet --load --tag "$image" "$context" >/dev/null
