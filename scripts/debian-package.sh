#!/usr/bin/env bash
# Builds the Debian packages of debian/ from a copy of this tree, without network, looks
# at what is in them, and leaves them in FOLDER (build-debian/ if not given). Installs what
# building takes first. DEB_BUILD_OPTIONS=nocheck leaves the unit tests out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh

if ! command -v apt-get >/dev/null 2>&1; then
    echo "SKIP: Debian packages are built on Debian and its kin"
    exit 77
fi

# The sources as git would take them, or all of an unpacked archive, but no build folder.
list_sources() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard -z
    else
        find . -path './build*' -prune -o -type f -print0
    fi
}

copy_tree() { # FOLDER
    local file
    mkdir -p "$1"
    while IFS= read -r -d '' file; do
        if [ -e "$file" ]; then
            cp -P --parents "$file" "$1"
        fi
    done < <(list_sources)
}

need_build_dependencies() {
    local missing package
    # Its exit status says that there are some, which is no failure here.
    missing=$({ dpkg-checkbuilddeps debian/control 2>&1 || true; } |
        sed -n 's/.*nmet build dependencies: //p' | sed 's/([^)]*)//g')
    for package in $missing; do
        need_package "${package%%:*}" "a build dependency of debian/control"
    done
}

# The commands and modules of the packages work from where they were unpacked.
look_inside() { # PACKAGE...
    local package libraries
    for package in "$@"; do
        dpkg-deb -x "$package" "$work/root"
    done
    libraries=$(dirname "$(find "$work/root" -name librfa.so.0)")
    LD_LIBRARY_PATH=$libraries "$work/root/usr/bin/rfa" devices | tee "$work/devices"
    grep -q '^cpu:0' "$work/devices" && grep -q '^reference:0' "$work/devices"
}

need_command dpkg-checkbuilddeps dpkg-dev "builds the packages"
install_needed
dpkg -s build-essential >/dev/null 2>&1 || need_package build-essential "Debian's compilers"
need_build_dependencies
install_needed

folder=${1:-build-debian}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy_tree "$work/rfa"
(cd "$work/rfa" && dpkg-buildpackage -b -us -uc)
look_inside "$work"/*.deb
if command -v lintian >/dev/null 2>&1; then
    lintian --allow-root --fail-on error,warning "$work"/*.changes
else
    echo "lintian is not installed: the packages were not checked by it"
fi
mkdir -p "$folder"
mv "$work"/*.deb "$work"/*.changes "$work"/*.buildinfo "$folder"
echo "The packages are in $folder"
