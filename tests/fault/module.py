#!/usr/bin/env python3
"""A module's calls fail under the `rfa` command: the exit code is the status's, the one
line is the module's sentence, and no file is left. rfa_backend_failing.c is the module;
it says that its memory is a GPU's, so that everything goes through its table.

usage: module.py path/to/rfa modules=path/to/folder [unittest arguments]
"""

import sys

import commands
from commands import Command, rfa

STATUSES = range(11, 17)
CUDA = "2"
# device_get is asked for its one device by device_count first.
RUN_SLOTS = "device_count device_get context_create plan run alloc write read synchronize".split()


def environment(slot, code=15, silent=False):
    return {
        "RFA_BACKEND_PATH": commands.SETTINGS["modules"], "FAILING_DEVICE": CUDA, "FAILING_SLOT": slot,
        "FAILING_STATUS": str(code - 10), "FAILING_SILENTLY": "1" if silent else "",
    }


class Module(Command):
    def test_run(self):
        path, out = self.make(), self.folder / "out"
        command = ["run", path, "--backend", "failing", "--repeat", "1", "-o", out]
        done = rfa(*command, environment=environment(""))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(out.stat().st_size, path.stat().st_size // 3)
        out.unlink()
        for slot in RUN_SLOTS:
            for code in STATUSES:
                for silent in (False, True):
                    done = rfa(*command, environment=environment(slot, code, silent))
                    self.refused(done, code, f"{slot}, {code}")
                    word = b"does not say why" if silent else f"slot {slot} fails with".encode()
                    self.assertIn(word, done.stderr)
                    self.assertEqual(self.files(), ["video.safetensors"])

    def test_devices(self):
        for slot in ("device_count", "device_get"):
            for arguments in ([], ["--json"]):
                done = rfa("devices", *arguments, environment=environment(slot))
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                self.assertIn(f"slot {slot} fails with device error".encode(), done.stdout)
                self.assertIn(b"host processor", done.stdout, "the other backends are listed")

    def test_verify_and_bench(self):
        """They fail, or skip the device and say that nothing ran."""
        for slot in ("device_get", "context_create", "alloc", "run", "merge"):
            single = {"OMP_NUM_THREADS": "1", **environment(slot)}
            done = rfa("verify", "--backend", "failing", environment=single)
            self.assertIn(done.returncode, (1, 14, 15), f"{slot}: {done.stderr}")
        for slot in RUN_SLOTS:
            done = rfa(
                "bench", "--backend", "failing", "--grid", "1,4,5", "--heads", "1", "--rounds", "1",
                environment=environment(slot),
            )
            self.assertIn(done.returncode, (1, 14, 15), f"{slot}: {done.stderr}")


if __name__ == "__main__":
    sys.exit(commands.main())
