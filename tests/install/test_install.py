#!/usr/bin/env python3
"""Tests of what `meson install` leaves: files, programs built against it by pkg-config
alone, the rfa command, all of it moved elsewhere, the man pages; and of the build folder
used without installing.

usage: test_install.py meson SOURCE BUILD PREFIX --bindir=... --libdir=... --includedir=...
       --datadir=... --mandir=... [unittest arguments]
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

SETTINGS = None  # the command line
INSTALLED = None  # the installed tree, under DESTDIR
HEADERS = ("attention.h", "base.h", "device.h", "rfa.h")
PKG_CONFIG = shutil.which("pkg-config") or shutil.which("pkgconf")
STRICT = ["-Wall", "-Wextra", "-Wundef", "-Wshadow", "-pedantic", "-Werror"]


def call(*command, **environment):
    """Runs without what this process's environment says of rfa, libraries and packages."""
    mine = {name: value for name, value in os.environ.items()
            if not re.match(r"RFA_|PKG_CONFIG|LD_LIBRARY_PATH", name)}
    return subprocess.run(
        [str(word) for word in command], env={**mine, **environment}, cwd="/",
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )


class Tree:
    """An installed tree whose prefix is at `root`."""

    def __init__(self, root):
        self.root = pathlib.Path(root)

    def folder(self, name):
        return self.root / os.path.relpath(getattr(SETTINGS, name), SETTINGS.prefix)

    @property
    def rfa(self):
        return self.folder("bindir") / "rfa"

    @property
    def modules(self):
        return self.folder("libdir") / "rfa"

    def files(self):
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}


def built_modules():
    return {path.name for path in pathlib.Path(SETTINGS.build).glob("rfa_backend_*.so")}


def has_command():
    return INSTALLED.rfa.exists()


class Installed(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.scratch = pathlib.Path(temporary.name)

    def ok(self, *command, **environment):
        done = call(*command, **environment)
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def build(self, source, pkgconfig, *options, compiler="CC"):
        """Compiles a copy of `source` with what pkg-config says; skips without a compiler."""
        words = shlex.split(os.environ.get(compiler, ""))
        if not words:
            self.skipTest(f"no compiler: {compiler} is not set")
        flags = self.ok(PKG_CONFIG, "--cflags", "--libs", "rfa", PKG_CONFIG_PATH=str(pkgconfig)).split()
        copy = pathlib.Path(tempfile.mkdtemp(dir=self.scratch)) / {"CC": "it.c", "CXX": "it.cpp"}[compiler]
        shutil.copy(source, copy)
        program = copy.with_suffix("")
        self.ok(*words, *STRICT, *options, copy, *flags, "-o", program)
        return program

    def modules_seen(self, program, libraries):
        return set(self.ok(program, LD_LIBRARY_PATH=str(libraries)).split("\n")[:-1])

    def expect_modules(self, paths, folder):
        self.assertEqual(paths, {str(folder.resolve() / name) for name in built_modules()})

    def listed(self, tree):
        found = json.loads(self.ok(tree.rfa, "devices", "--json"))["backends"]
        # A module whose driver is missing is found all the same.
        return {backend["path"] for backend in found if backend["status"] in ("ok", "no device")}

    def check_outside(self, tree, compiler, standard):
        """A program built by pkg-config alone finds the tree's modules, and no other."""
        libdir = tree.folder("libdir")
        source = SETTINGS.source / "tests/install/outside.c"
        program = self.build(source, libdir / "pkgconfig", standard, compiler=compiler)
        self.expect_modules(self.modules_seen(program, libdir), tree.modules)

    def check_peer(self, tree):
        """`rfa bench` hands the tree's own helper to Python."""
        seen, python = self.scratch / "seen", self.scratch / "python"
        python.write_text(f'#!/bin/sh\nprintf %s "$1" >"{seen}"\necho error no\n')
        python.chmod(0o755)
        call(tree.rfa, "bench", "--shape", "1,1,64,16", "--variants", "dense", "--rounds", "1",
             "--backend", "cpu", "--peer", "torch", "--python", python)
        helper = tree.folder("datadir") / "rfa/peer_torch.py"
        self.assertEqual(os.path.realpath(seen.read_text()), str(helper.resolve()))

    def need_command(self):
        if not has_command():
            self.skipTest("built without the rfa command")


class Files(Installed):
    def test_nothing_is_missing_or_left_over(self):
        libdir = INSTALLED.folder("libdir")
        (real,) = libdir.glob("librfa.so.*.*.*")
        expected = {real, libdir / "librfa.so", libdir / "librfa.so.0", libdir / "pkgconfig/rfa.pc"}
        expected |= {INSTALLED.modules / name for name in built_modules()}
        expected |= {INSTALLED.folder("includedir") / "rfa" / name for name in HEADERS}
        expected |= {INSTALLED.folder("mandir") / "man3/librfa.3", INSTALLED.folder("datadir") / "doc/rfa/LICENSE"}
        if has_command():
            expected |= {INSTALLED.rfa, INSTALLED.folder("mandir") / "man1/rfa.1",
                         INSTALLED.folder("datadir") / "rfa/peer_torch.py"}
        self.assertEqual(INSTALLED.files(), {str(path.relative_to(INSTALLED.root)) for path in expected})
        self.assertEqual((libdir / "librfa.so").resolve(), real.resolve())

    def test_version(self):
        version = self.ok(PKG_CONFIG, "--modversion", "rfa",
                          PKG_CONFIG_PATH=str(INSTALLED.folder("libdir") / "pkgconfig")).strip()
        self.assertTrue((INSTALLED.folder("libdir") / f"librfa.so.{version}").is_file())
        self.need_command()
        self.assertEqual(self.ok(INSTALLED.rfa, "--version"), f"rfa {version}\n")

    def test_pkg_config_file_names_no_folder_of_the_build(self):
        text = (INSTALLED.folder("libdir") / "pkgconfig/rfa.pc").read_text()
        for place in (SETTINGS.build, str(SETTINGS.source) + "/"):
            self.assertNotIn(place, text)


class Programs(Installed):
    def test_in_c(self):
        self.check_outside(INSTALLED, "CC", "-std=c11")

    def test_in_cpp(self):
        self.check_outside(INSTALLED, "CXX", "-std=c++11")

    def test_example(self):
        libdir = INSTALLED.folder("libdir")
        program = self.build(SETTINGS.source / "examples/attention.c", libdir / "pkgconfig", "-std=c11")
        self.assertIn("of the softmax mass", self.ok(program, LD_LIBRARY_PATH=str(libdir)))

    def test_needs_the_versioned_name_alone(self):
        libdir = INSTALLED.folder("libdir")
        program = self.build(SETTINGS.source / "tests/install/outside.c", libdir / "pkgconfig")
        runtime = self.scratch / "runtime"
        runtime.mkdir()
        shutil.copy(libdir / "librfa.so.0", runtime / "librfa.so.0")
        shutil.copytree(INSTALLED.modules, runtime / "rfa")
        self.expect_modules(self.modules_seen(program, runtime), runtime / "rfa")

    def test_each_header_alone(self):
        for header in HEADERS:
            source = self.scratch / f"alone_{header}.c"
            source.write_text(f"#include <rfa/{header}>\nint main(void) {{ return RFA_VERSION_MAJOR; }}\n")
            pkgconfig = INSTALLED.folder("libdir") / "pkgconfig"
            self.build(source, pkgconfig, "-std=c11")
            if os.environ.get("CXX"):
                self.build(source, pkgconfig, "-std=c++11", compiler="CXX")

    def test_uninstalled(self):
        build = pathlib.Path(SETTINGS.build)
        program = self.build(SETTINGS.source / "tests/install/outside.c", build / "meson-uninstalled")
        self.expect_modules(self.modules_seen(program, build), build)


class Command(Installed):
    def setUp(self):
        super().setUp()
        self.need_command()

    def test_devices_come_from_the_installed_place(self):
        self.expect_modules(self.listed(INSTALLED), INSTALLED.modules)

    def test_through_a_link(self):
        (self.scratch / "rfa").symlink_to(INSTALLED.rfa)
        self.assertIn("cpu:0", self.ok(self.scratch / "rfa", "devices"))

    def test_peer_helper(self):
        self.check_peer(INSTALLED)

    def test_without_modules(self):
        if pathlib.Path(SETTINGS.libdir, "rfa").exists():
            self.skipTest("another installation's modules are in the compiled-in folder")
        bare = Tree(self.scratch / "bare")
        shutil.copytree(INSTALLED.root, bare.root, symlinks=True)
        shutil.rmtree(bare.modules)
        self.assertEqual(self.ok(bare.rfa, "devices"), "no backend modules were found\n")


class Moved(Installed):
    def setUp(self):
        super().setUp()
        pc = (INSTALLED.folder("libdir") / "pkgconfig/rfa.pc").read_text()
        if "${pcfiledir}" not in pc:
            self.skipTest("built with -Dpkgconfig.relocatable=false")
        self.tree = Tree(self.scratch / "a folder" / "moved")
        self.tree.root.parent.mkdir()
        shutil.copytree(INSTALLED.root, self.tree.root, symlinks=True)

    def test_programs(self):
        tree = Tree(self.scratch / "moved")  # pkg-config quotes blanks, a shell would undo it
        self.tree.root.rename(tree.root)
        self.check_outside(tree, "CC", "-std=c11")

    def test_command(self):
        self.need_command()
        self.expect_modules(self.listed(self.tree), self.tree.modules)

    def test_peer_helper(self):
        self.need_command()
        self.check_peer(self.tree)


class Manual(Installed):
    def page(self, name):
        return INSTALLED.folder("mandir") / f"man{name[-1]}" / name

    def text(self, name):
        return self.page(name).read_text().replace("\\-", "-")

    def test_no_warnings(self):
        if not shutil.which("man"):
            self.skipTest("there is no man command")
        for name in ("librfa.3", "rfa.1") if has_command() else ("librfa.3",):
            done = call("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", self.page(name), MANWIDTH="80")
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_every_command_and_option(self):
        self.need_command()
        text = self.text("rfa.1")
        self.assertIn(f'"{self.ok(INSTALLED.rfa, "--version").strip()}"', text)
        commands = re.findall(r"^  (\w+) ", self.ok(INSTALLED.rfa, "--help"), re.MULTILINE)
        self.assertGreater(len(commands), 4)
        for command in commands:
            self.assertIn(f".B {command}\n", text)
            shown = self.ok(INSTALLED.rfa, command, "--help")
            options = set(re.findall(r"^  .{4}(--\w[\w-]*)", shown, re.MULTILINE)) - {"--help"}
            section = re.search(rf"^\.SH OPTIONS OF {command.upper()}$(.*?)^\.SH ", text, re.MULTILINE | re.DOTALL)
            for option in options:
                self.assertRegex(section[1], re.escape(option) + r"(?![\w-])", command)

    def test_every_function(self):
        text = self.text("librfa.3")
        for header in HEADERS:
            declared = (INSTALLED.folder("includedir") / "rfa" / header).read_text()
            for function in re.findall(r"^RFA_API [^;(]*?(rfa_\w+)\(", declared, re.MULTILINE):
                self.assertIn(function, text)


def install(folder):
    done = call(SETTINGS.meson, "install", "-C", SETTINGS.build, "--no-rebuild", "--quiet", DESTDIR=folder)
    if done.returncode != 0:
        sys.exit(f"meson install failed:\n{done.stdout}{done.stderr}")
    return Tree(folder + SETTINGS.prefix)


def main():
    global SETTINGS, INSTALLED
    parser = argparse.ArgumentParser()
    for name in ("meson", "source", "build", "prefix"):
        parser.add_argument(name)
    for name in ("bindir", "libdir", "includedir", "datadir", "mandir"):
        parser.add_argument("--" + name, required=True)
    SETTINGS, rest = parser.parse_known_args()
    SETTINGS.source = pathlib.Path(SETTINGS.source)
    with tempfile.TemporaryDirectory() as folder:
        INSTALLED = install(folder)
        result = unittest.main(argv=[sys.argv[0], *rest], exit=False).result
    failed, skipped = len({id(t) for t, _ in result.failures + result.errors}), len(result.skipped)
    print(f"{max(result.testsRun - failed - skipped, 0)} passed, {failed} failed, {skipped} skipped")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
