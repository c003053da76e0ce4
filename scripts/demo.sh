#!/usr/bin/env bash
# Sparse attention against dense attention on synthetic video tokens, explained.
# Installs what is missing and builds first. Ends within two minutes on two cores,
# apart from that. RFA_BUILD names another build folder than build/; arguments are
# handed to both `rfa run` (such as --backend cuda).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

need_build_tools
need_command python3 python3 "explains the results"
install_needed

build=${RFA_BUILD:-build}
[ -f "$build/build.ninja" ] || configure "$build" --buildtype=release -Dtools=enabled
ninja -C "$build"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
rfa=$(find "$build" -maxdepth 2 -type f -name rfa -perm -u+x | head -n 1)

grid=9,22,40 heads=5 dim=128 recall=0.95
echo
echo "Making a synthetic video of ${grid//,/ x } tokens: $heads attention heads of dim $dim, bf16 ..."
"$rfa" make --grid "$grid" --heads "$heads" --dim "$dim" --dtype bf16 -o "$folder/video.safetensors"
echo "Dense attention ..."
"$rfa" run "$folder/video.safetensors" --rule dense --json "$@" >"$folder/dense.json"
echo "Attention that keeps a recall of $recall, then the check of every result (the longest part) ..."
checked=0
"$rfa" run "$folder/video.safetensors" --rule recall --recall "$recall" --check --json "$@" \
    >"$folder/sparse.json" || checked=$?
python3 scripts/demo_report.py "$folder/dense.json" "$folder/sparse.json" || checked=1
exit "$checked"
