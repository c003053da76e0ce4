#!/usr/bin/env python3
"""The n-th allocation of a command fails, for every n that it reaches; for every fifth
also with all that follow. It succeeds as if nothing had been, or ends with exit code 13 and one
line; it leaves no half-written file and nothing allocated that a clean run does not
leave. failing_malloc.h says what is not counted. In a build with the address sanitizer
every run is under LeakSanitizer too.

usage: memory.py path/to/rfa failing_malloc=path/to/shim.so [unittest arguments]
"""

import re
import sys

import commands
from commands import OUT_OF_MEMORY, Command, rfa

MOST = 5000


class Memory(Command):
    def attempt(self, arguments, at, onwards):
        """The process, and how many allocations it counted, failed and left."""
        report = self.folder / "report"
        environment = {
            **commands.preloaded(commands.SETTINGS["failing_malloc"]),
            "FAIL_AT": str(at),
            "FAIL_REPORT": str(report),
            "OMP_NUM_THREADS": "2",
        }
        if onwards:
            environment["FAIL_ONWARDS"] = "1"
        done = rfa(*arguments, environment=environment)
        what = f"allocation {at}{' and later ones' if onwards else ''} of {arguments}"
        self.assertTrue(report.exists(), f"{what}: {done.returncode}, {done.stderr.decode()}")
        tally = [int(word) for word in report.read_text().split()]
        report.unlink()
        return done, what, tally

    def sweep(self, *arguments, output=None):
        """Arguments of a command that works; `output` is the file that it writes."""
        if output:
            output.write_bytes(b"old")
        clean, what, (total, _, left) = self.attempt(arguments, 0, False)
        self.assertEqual(clean.returncode, 0, clean.stderr)
        self.assertGreater(total, 20, "the shim does not see the command's allocations")
        self.assertLess(total, MOST, what)
        written = output.read_bytes() if output else None
        there = self.files()
        for onwards in (False, True):
            for at in range(1, total + 1, 5 if onwards else 1):
                if output:
                    output.write_bytes(b"old")
                done, what, (_, failed, still_left) = self.attempt(arguments, at, onwards)
                self.assertGreater(failed, 0, what)
                self.assertLessEqual(still_left, left, f"{what}: left allocations behind")
                self.assertEqual(self.files(), there, what)
                if done.returncode != 0:
                    self.refused(done, OUT_OF_MEMORY, what)
                elif b"memory ran out in loading" not in done.stdout:  # `rfa devices` says so
                    self.same_words(done, clean, what)
                if output:
                    self.assertIn(output.read_bytes(), [written] + [b"old"] * (done.returncode != 0), what)

    def same_words(self, done, clean, what):
        """The same output but for times, and the processor's name, which takes a file."""
        self.assertEqual(done.stderr, b"", what)
        kept = [
            [re.sub(r"[-+.\de]+", "0", line) for line in text.decode().splitlines()
             if not re.search(r"device|backend|name|cpu:0|time|tflops", line)]
            for text in (done.stdout, clean.stdout)
        ]
        self.assertEqual(kept[0], kept[1], what)

    def test_make(self):
        output = self.folder / "made"
        self.sweep("make", "--grid", "1,4,5", "--heads", "2", "--dim", "8", "-o", output, output=output)

    def test_run(self):
        path, output = self.make(), self.folder / "out"
        self.sweep("run", path, "--repeat", "1", "--check", "-o", output, output=output)

    def test_run_to_json(self):
        self.sweep("run", self.make(), "--repeat", "1", "--order", "predicted", "--json")

    def test_run_on_the_reference(self):
        self.sweep("run", self.make(), "--repeat", "1", "--backend", "reference")

    def test_devices(self):
        self.sweep("devices")
        self.sweep("devices", "--json")


if __name__ == "__main__":
    sys.exit(commands.main())
