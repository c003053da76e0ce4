# shellcheck shell=bash
# What the project needs from Debian's and Ubuntu's package managers. Sourced by
# test.sh, demo.sh and .ci/run: call need_* for each thing, then install_needed,
# which does nothing (and needs no root) when everything is there.

needed_packages=()
needed_reasons=()

need_package() { # PACKAGE REASON
    local known
    for known in "${needed_packages[@]}"; do
        [ "$known" = "$1" ] && return 0
    done
    needed_packages+=("$1")
    needed_reasons+=("$2")
}

need_command() { # COMMAND PACKAGE REASON
    command -v "$1" >/dev/null 2>&1 || need_package "$2" "$3"
}

need_file() { # FILE PACKAGE REASON
    [ -e "$1" ] || need_package "$2" "$3"
}

compiler() {
    local name
    for name in "${CC:-}" cc gcc clang; do
        # CC may hold options too ("ccache gcc"): only its first word is a command.
        if [ -n "$name" ] && command -v "${name%% *}" >/dev/null 2>&1; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

need_header() { # HEADER PACKAGE REASON
    local cc
    # shellcheck disable=SC2086
    if cc=$(compiler) && echo "#include <$1>" | $cc -E -x c - >/dev/null 2>&1; then
        return 0
    fi
    need_package "$2" "$3"
}

# What compiling and running the library and the command takes.
need_build_tools() {
    compiler >/dev/null || need_package gcc "compiles the library (it brings OpenMP too)"
    need_header stdio.h libc6-dev "the C library's headers"
    need_command meson meson "configures the build"
    need_command ninja ninja-build "runs the build"
    command -v pkg-config >/dev/null 2>&1 || command -v pkgconf >/dev/null 2>&1 ||
        need_package pkg-config "finds the libraries below"
    need_header dlpack/dlpack.h libdlpack-dev "the tensor struct of the API"
    need_header cjson/cJSON.h libcjson-dev "reads and writes JSON in the rfa command"
    case $(compiler || true) in
    *clang*) need_header omp.h libomp-dev "threads for the CPU backends under clang" ;;
    esac
}

# What the tests take beyond that.
need_test_tools() {
    need_header criterion/criterion.h libcriterion-dev "the framework of the unit tests"
    need_command "${CXX:-g++}" g++ "checks that the public headers are C++ as well"
    need_command python3 python3 "runs the tests of the rfa command"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

install_needed() {
    local i list="${needed_packages[*]}"
    [ "${#needed_packages[@]}" -eq 0 ] && return 0
    echo "Missing on this machine:"
    for i in "${!needed_packages[@]}"; do
        printf '  %-18s %s\n' "${needed_packages[i]}" "${needed_reasons[i]}"
    done
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "There is no apt-get here. Install what these Debian packages hold, then run this again:" >&2
        echo "  $list" >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
        echo "Installing needs root, and there is no sudo here. As root, run:" >&2
        echo "  apt-get update && apt-get install --no-install-recommends $list" >&2
        return 1
    fi
    echo "Installing them with apt-get."
    if ! as_root apt-get update -qq ||
        ! as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${needed_packages[@]}"; then
        echo "apt-get did not succeed (see above). These packages are needed:" >&2
        echo "  $list" >&2
        return 1
    fi
    needed_packages=()
    needed_reasons=()
}

# Configures FOLDER with the given Meson options, whether it exists or not.
configure() { # FOLDER OPTION...
    local folder=$1
    shift
    if [ -f "$folder/build.ninja" ]; then
        meson setup --reconfigure "$folder" "$@"
    else
        meson setup "$folder" "$@"
    fi
}
