#!/usr/bin/env bash
# Builds everything with warnings as errors and runs every test. Installs what is
# missing. The last line sums up: "N passed, N failed, N skipped".
# RFA_BUILD names another build folder than build/.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

need_build_tools
need_test_tools
install_needed

build=${RFA_BUILD:-build}
configure "$build" --buildtype=release -Dwerror=true -Dtests=enabled -Dtools=enabled
ninja -C "$build"

# The environment chooses backends and folders; tests start from none of that.
unset RFA_BACKEND RFA_BACKEND_PATH RFA_CPU_ISA
unset RFA_CUDA_KERNELS RFA_CUDA_MULTIPROCESSORS RFA_CUDA_SHARED_MEMORY
status=0
meson test -C "$build" --no-rebuild --print-errorlogs || status=$?
python3 scripts/test_summary.py "$build/meson-logs/testlog.json" || status=1
exit "$status"
