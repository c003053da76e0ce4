#!/usr/bin/env bash
# Compiles the headers that all backends share in one language: c, cpp, cuda, hip
# or opencl. Exit status 77, with the reason, where the compiler is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
source=tests/languages/shared_headers
strict=(-I. -Itests/languages -Wall -Wextra -Werror)

skip() {
    echo "SKIP: $1"
    exit 77
}

first_of() {
    local name
    for name in "$@"; do
        command -v "$name" && return 0
    done
    return 1
}

case $1 in
c)
    cc=$(first_of gcc clang cc) || skip "no C compiler"
    "$cc" -std=c11 "${strict[@]}" -Wundef -Wshadow -pedantic "$source.c" -o "$out/c"
    "$out/c"
    ;;
cpp)
    cxx=$(first_of g++ clang++ c++) || skip "no C++ compiler"
    "$cxx" -std=c++11 "${strict[@]}" -Wundef -Wshadow "$source.cpp" -o "$out/cpp"
    "$out/cpp"
    ;;
cuda)
    nvcc=$(first_of nvcc /usr/local/cuda/bin/nvcc) || skip "no nvcc (CUDA toolkit)"
    "$nvcc" -std=c++17 -I. -Itests/languages -Werror all-warnings -cubin -o "$out/cubin" "$source.cu"
    ;;
hip)
    clang=$(first_of clang++-19 clang++-20 clang++-18) || skip "no clang 18 or later for HIP"
    "$clang" -x hip -std=c++17 --offload-arch=gfx942 --cuda-device-only --no-gpu-bundle-output \
        -nogpulib -nogpuinc -O3 "${strict[@]}" -c -emit-llvm -o "$out/hip.bc" "$source.hip"
    ;;
opencl)
    clang=$(first_of clang-14 clang clang-19) || skip "no clang for OpenCL C"
    "$clang" -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -fsyntax-only "${strict[@]}" \
        "$source.cl"
    ;;
*)
    echo "usage: $0 c|cpp|cuda|hip|opencl" >&2
    exit 2
    ;;
esac
