#!/bin/sh
# Builds tiny.engine with TensorRT 8.2, on the machine that will run it: an engine works nowhere else.
# Further options of trtexec may follow: sh build.sh --useCudaGraph
set -eu
cd "$(dirname "$0")"
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [ ! -x "$trtexec" ]; then
  echo "trtexec is missing; JetPack installs it: sudo apt-get install libnvinfer-bin" >&2
  exit 1
fi
exec "$trtexec" --onnx=tiny.onnx --saveEngine=tiny.engine --fp16 --workspace=512 "$@"
