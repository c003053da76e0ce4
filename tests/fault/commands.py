"""What the tests of a failing `rfa` command share."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

RFA = None
SETTINGS = {}
USAGE, OUT_OF_MEMORY, IO_ERROR, DEVICE_ERROR = 2, 13, 16, 15


def rfa(*arguments, environment=None, **options):
    return subprocess.run(
        [RFA, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **(environment or {})},
        timeout=120,
        check=False,
        **options,
    )


def preloaded(shim):
    """The environment that puts `shim` before everything, a sanitizer's library too."""
    sanitizer = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))
    return {"LD_PRELOAD": shim, "ASAN_OPTIONS": sanitizer}


class Command(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        self.addCleanup(self.temporary.cleanup)

    def make(self, *arguments):
        path = self.folder / "video.safetensors"
        done = rfa("make", "--grid", "2,6,10", "--heads", "2", "--dim", "32", *arguments, "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path

    def refused(self, done, code, what=""):
        """One line on standard error, nothing on standard output, this exit code."""
        error = done.stderr.decode()
        self.assertEqual(done.returncode, code, f"{what}: {error}")
        self.assertEqual(done.stdout, b"", what)
        self.assertRegex(error, r"\Arfa[^\n]*: [^\n]{8,}\n\Z", what)

    def files(self):
        return sorted(entry.name for entry in self.folder.iterdir())


def main():
    """The command comes first, what else a test wants after it: NAME=VALUE, until an
    argument that is unittest's."""
    global RFA, SETTINGS
    RFA = os.path.abspath(sys.argv[1])
    settings = [word for word in sys.argv[2:] if re.match(r"[a-z_]+=", word)]
    for name in ("RFA_BACKEND", "RFA_BACKEND_PATH", "RFA_CPU_ISA"):
        os.environ.pop(name, None)
    SETTINGS = dict(word.split("=", 1) for word in settings)
    rest = [word for word in sys.argv[2:] if word not in settings]
    result = unittest.main(argv=[sys.argv[0], *rest], exit=False).result
    failed, skipped = len({id(t) for t, _ in result.failures + result.errors}), len(result.skipped)
    print(f"{max(result.testsRun - failed - skipped, 0)} passed, {failed} failed, {skipped} skipped")
    return 0 if result.wasSuccessful() else 1
