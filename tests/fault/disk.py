#!/usr/bin/env python3
"""The disk fills or fails while `rfa make -o` and `rfa run -o` write, at many places of
the file: exit code 16, one line, no temporary file, and the old file as it was. The disk
is a small tmpfs where root may mount one, a limit on the size of files, and a shim
(failing_write.c) that fails at any byte, and in fsync, close and rename.

usage: disk.py path/to/rfa failing_write=path/to/shim.so [unittest arguments]
"""

import os
import resource
import subprocess
import sys

import commands
from commands import IO_ERROR, Command, rfa

OLD = b"what was there before"
MAKE = ["make", "--grid", "2,6,10", "--heads", "2", "--dim", "32"]


class Disk(Command):
    """Runs every command that writes, in a folder where something fails."""

    def setUp(self):
        super().setUp()
        self.video = self.make()
        self.place = self.folder / "place"
        self.place.mkdir()
        self.out = self.place / "out"
        self.writers = (MAKE, ["run", self.video, "--repeat", "1"])

    def written(self, writer):
        """The bytes of the file when nothing fails."""
        path = self.folder / "whole"
        done = rfa(*writer, "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path.read_bytes()

    def there(self):
        return {entry.name: entry.read_bytes() for entry in self.place.iterdir()}

    def fails(self, writer, what, words="", environment=None, **options):
        """With an old file and without one. The shim never fails a file that is read."""
        for before in ({}, {"out": OLD}):
            for name, data in before.items():
                (self.place / name).write_bytes(data)
            done = rfa(*writer, "-o", self.out, environment=environment, **options)
            self.refused(done, IO_ERROR, f"{writer[0]}, {what}")
            self.assertIn(words, done.stderr.decode(), what)
            self.assertEqual(self.there(), before, f"{writer[0]}, {what}")
            self.out.unlink(missing_ok=True)

    def shim(self, **settings):
        return {**commands.preloaded(commands.SETTINGS["failing_write"]), **settings}


class Shim(Disk):
    def test_full_at_any_byte(self):
        for writer in self.writers:
            whole = self.written(writer)
            header = 8 + int.from_bytes(whole[:8], "little")
            places = {0, 1, 7, 8, 9, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1}
            places.update(range(0, len(whole), max(len(whole) // 12, 1)))
            for room in sorted(places):
                self.fails(writer, f"room for {room} bytes", "No space", self.shim(WRITE_ROOM=str(room)))

    def test_room_that_just_suffices(self):
        for writer in self.writers:
            whole = self.written(writer)
            done = rfa(*writer, "-o", self.out, environment=self.shim(WRITE_ROOM=str(len(whole))))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.there(), {"out": whole})

    def test_failures_after_the_last_byte(self):
        for writer in self.writers:
            for call in ("fsync", "close", "rename"):
                self.fails(writer, call, "Input/output error", self.shim(WRITE_FAIL=call))

    def test_links_keep_what_they_point_at(self):
        real = self.folder / "real"
        real.write_bytes(OLD)
        for writer in self.writers:
            self.out.symlink_to(real)
            done = rfa(*writer, "-o", self.out, environment=self.shim(WRITE_ROOM="4096"))
            self.refused(done, IO_ERROR)
            self.assertTrue(self.out.is_symlink())
            self.assertEqual((real.read_bytes(), self.files()),
                             (OLD, ["place", "real", "video.safetensors"]))
            self.out.unlink()


class Limit(Disk):
    def test_size_limits(self):
        """Known before the first byte, and where space cannot be reserved in advance."""
        for writer in self.writers:
            size = len(self.written(writer))
            for limit in (0, 100, size // 2, size - 1):
                for environment in ({}, self.shim()):
                    set_limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                    self.fails(writer, f"a limit of {limit}", "too large", environment, preexec_fn=set_limit)


class Tmpfs(Disk):
    def mount(self, pages):
        size = pages * os.sysconf("SC_PAGE_SIZE")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.place],
            capture_output=True, check=False,
        )
        if done.returncode != 0:
            self.skipTest(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")

    def unmount(self):
        subprocess.run(["umount", self.place], check=True)

    def test_a_small_disk(self):
        if os.getuid() != 0:
            self.skipTest("only root mounts a tmpfs")
        page = os.sysconf("SC_PAGE_SIZE")
        for writer in self.writers:
            needed = -(-len(self.written(writer)) // page)
            for pages in sorted({1, 2, 3, needed // 2, needed - 1, needed}):
                # One page more, for the old file.
                self.mount(pages + 1)
                try:
                    (self.place / "filler").write_bytes(b"f" * page)
                    for environment in ({}, self.shim()):
                        self.attempt(writer, pages < needed, environment)
                finally:
                    self.unmount()

    def attempt(self, writer, full, environment):
        before = self.there()
        done = rfa(*writer, "-o", self.out, environment=environment)
        if full:
            self.refused(done, IO_ERROR, str(writer))
            self.assertIn("No space", done.stderr.decode())
            self.assertEqual(self.there(), before)
            self.assertEqual(os.statvfs(self.place).f_bfree > 0, True, "space was not given back")
        else:
            self.assertEqual(done.returncode, 0, done.stderr)
            self.out.unlink()

    def test_an_old_file_on_a_full_disk(self):
        if os.getuid() != 0:
            self.skipTest("only root mounts a tmpfs")
        for writer in self.writers:
            needed = -(-len(self.written(writer)) // os.sysconf("SC_PAGE_SIZE"))
            self.mount(needed)
            try:
                self.out.write_bytes(OLD)
                for environment in ({}, self.shim()):
                    self.attempt(writer, True, environment)
            finally:
                self.unmount()


if __name__ == "__main__":
    sys.exit(commands.main())
