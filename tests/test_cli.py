#!/usr/bin/env python3
"""Tests of the `rfa` command: what it writes, and how it refuses bad input.

usage: test_cli.py path/to/rfa [unittest arguments]
"""

import json
import os
import pathlib
import pwd
import resource
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

RFA = None
USAGE, IO_ERROR, INVALID, UNSUPPORTED, NO_DEVICE = 2, 16, 11, 12, 14

RUN_FIELDS = """backend device dtype shape rule target mass order grid block time_ms tflops blocks_total
    blocks_visited blocks_kept sparsity recall_mean recall_block_min""".split()
SHAPE_FIELDS = "batch heads_q heads_kv len_q len_k dim".split()
CHECK_FIELDS = "decisions decisions_wrong max_abs_error max_abs_error_allowed ok".split()


def rfa(*arguments, environment=None, **options):
    env = {**os.environ, **(environment or {})}
    return subprocess.run(
        [RFA, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=env,
        timeout=120,
        check=False,
        **options,
    )


def encode(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def decode(path):
    raw = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def tensors(shapes, dtype="F32", values=None):
    """A header and zeros for tensors of the given shapes (a list each)."""
    size = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}
    header, at = {}, 0
    for name, shape in shapes.items():
        count = 1
        for length in shape:
            count *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + count * size[dtype]]}
        at += count * size[dtype]
    return header, bytes(at) if values is None else values


class Command(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        self.addCleanup(self.temporary.cleanup)

    def write(self, data, name="in.safetensors"):
        path = self.folder / name
        path.write_bytes(data)
        return path

    def make(self, *arguments, name="video.safetensors"):
        path = self.folder / name
        done = rfa("make", "--grid", "2,6,10", "--heads", "2", "--dim", "32", *arguments, "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path

    def refused(self, done, code, *words):
        """One line on standard error, nothing on standard output, this exit code."""
        error = done.stderr.decode()
        self.assertEqual(done.returncode, code, error)
        self.assertEqual(done.stdout, b"")
        self.assertTrue(error.startswith("rfa"), error)
        self.assertEqual(error.count("\n"), 1, error)
        self.assertTrue(error.endswith("\n"), error)
        for word in words:
            self.assertIn(word, error)


class Help(Command):
    def test_help_of_every_command(self):
        for arguments in [["--help"], *([c, "--help"] for c in ("devices", "make", "run", "verify"))]:
            done = rfa(*arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stderr, b"")
            self.assertIn(b"rfa", done.stdout)
            self.assertGreater(len(done.stdout.splitlines()), 8)
            self.assertLessEqual(max(map(len, done.stdout.decode().splitlines())), 110)

    def test_help_names_every_option(self):
        text = rfa("run", "--help").stdout.decode()
        for option in "backend device rule recall threshold mass order no-cubes block check json".split():
            self.assertIn("--" + option, text)
        text = rfa("make", "--help").stdout.decode()
        for option in "preset grid heads kinds dim dtype seed".split():
            self.assertIn("--" + option, text)

    def test_unknown_words(self):
        self.refused(rfa("fly"), USAGE, "fly")
        self.refused(rfa("run", "--fly", "a"), USAGE, "--fly")
        self.refused(rfa("run"), USAGE)
        self.refused(rfa("run", "a", "b"), USAGE)
        self.assertEqual(rfa().returncode, USAGE)

    def test_standard_output_that_is_full(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [RFA, "devices"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
            )
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)


class Devices(Command):
    def test_lists_what_works(self):
        text = rfa("devices").stdout.decode()
        self.assertIn("cpu:0", text)
        self.assertIn("reference:0", text)

    def test_json(self):
        found = json.loads(rfa("devices", "--json").stdout)
        backends = found["backends"] if isinstance(found, dict) else found
        self.assertLessEqual({"cpu", "reference"}, {backend["name"] for backend in backends})
        for backend in backends:
            self.assertIn("status", backend)
            self.assertIn("why", backend)

    def test_unusable_modules_are_listed_with_their_reason(self):
        self.write(b"this is no module", "rfa_backend_text.so")
        self.write(b"", "rfa_backend_empty.so")
        environment = {"RFA_BACKEND_PATH": str(self.folder)}
        done = rfa("devices", environment=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in (b"rfa_backend_text.so", b"rfa_backend_empty.so"):
            (line,) = [line for line in done.stdout.splitlines() if name in line]
            self.assertIn(b"not usable: ", line)
        self.assertIn(b"cpu:0", done.stdout)
        json.loads(rfa("devices", "--json", environment=environment).stdout)

    def test_missing_folder(self):
        done = rfa("devices", environment={"RFA_BACKEND_PATH": "/nonexistent/modules"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"/nonexistent/modules", done.stdout)
        self.assertIn(b"cpu:0", done.stdout)

    def test_kernels_of_the_environment_s_choice(self):
        done = rfa("devices", environment={"RFA_CPU_ISA": "portable"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, rb"cpu:0 .*, ISA portable \(of portable")
        done = rfa("devices", environment={"RFA_CPU_ISA": "z80"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, rb'not usable: RFA_CPU_ISA is "z80", no set of kernels')


class Make(Command):
    def test_writes_what_was_asked_for(self):
        for dtype, name in (("f32", "F32"), ("f16", "F16"), ("bf16", "BF16")):
            header, data = decode(self.make("--dtype", dtype, "--kinds", "sink,local"))
            for tensor in "qkv":
                self.assertEqual(header[tensor]["shape"], [1, 120, 2, 32])
                self.assertEqual(header[tensor]["dtype"], name)
            self.assertEqual(header["__metadata__"]["grid"], "2,6,10")
            self.assertEqual(len(data), 3 * 120 * 2 * 32 * (4 if dtype == "f32" else 2))

    def test_same_seed_same_bytes(self):
        one = self.make("--seed", "5").read_bytes()
        self.assertEqual(one, self.make("--seed", "5", name="again").read_bytes())
        other = self.make("--seed", "6", name="other").read_bytes()
        self.assertEqual(len(one), len(other))
        self.assertNotEqual(one, other)
        few = rfa(
            "make", "--grid", "2,6,10", "--heads", "2", "--dim", "32", "--seed", "5", "-o",
            self.folder / "few", environment={"OMP_NUM_THREADS": "1"},
        )
        self.assertEqual(few.returncode, 0)
        self.assertEqual(one, (self.folder / "few").read_bytes())

    def test_bad_options(self):
        out = self.folder / "never"
        for arguments in (
            ["--preset", "abacus"], ["--grid", "1,2"], ["--grid", "1,2,3,4"], ["--grid", "0,2,3"],
            ["--grid", "-1,2,3"], ["--grid", "a,b,c"], ["--grid", "9223372036854775807,2,3"],
            ["--grid", "99999999999999999999,2,3"], ["--heads", "0"], ["--heads", "1e3"],
            ["--dim", "257"], ["--dim", "0"], ["--kinds", "strange"], ["--kinds", ""], ["--dtype", "f64"],
            ["--seed", "x"], ["--seed", "-1"],
        ):
            self.refused(rfa("make", *arguments, "-o", out), USAGE)
            self.assertEqual(list(self.folder.iterdir()), [], arguments)
        self.refused(rfa("make"), USAGE, "-o")

    def test_places_that_cannot_be_written(self):
        for path in ("/nonexistent/x.safetensors", "/proc/x.safetensors", str(self.folder), "/dev/full", ""):
            done = rfa("make", "-o", path)
            self.refused(done, done.returncode)
            self.assertIn(done.returncode, (IO_ERROR, INVALID, USAGE), path)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_file_size_limit_leaves_nothing(self):
        path = self.write(b"old", "old.safetensors")
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        done = rfa("make", "-o", path, preexec_fn=limit)
        self.refused(done, IO_ERROR)
        self.assertEqual([entry.name for entry in self.folder.iterdir()], ["old.safetensors"])
        self.assertEqual(path.read_bytes(), b"old")

    def test_a_signal_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            command = [RFA, "make", "--preset", "wan2.1-1.3b-480p", "-o", str(self.folder / "big")]
            # Whoever runs the tests may ignore signals (nohup does), and that is inherited.
            default = lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  preexec_fn=default) as process:
                for _ in range(1000):
                    if list(self.folder.iterdir()):
                        break
                    time.sleep(0.01)
                self.assertNotEqual(list(self.folder.iterdir()), [], "no file was begun")
                process.send_signal(number)
                self.assertEqual(process.wait(60), -number)
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_standard_output_as_the_file(self):
        done = rfa("make", "--grid", "2,6,10", "--heads", "2", "--dim", "32", "-o", "/dev/stdout")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, self.make().read_bytes())

    def test_keeps_the_umask(self):
        path = self.make()
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o666 & ~mask)


class Run(Command):
    def run_json(self, path, *arguments, code=0):
        done = rfa("run", path, "--json", *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout)

    def test_json_has_every_field(self):
        path = self.make()
        for backend in ("cpu", "reference"):
            got = self.run_json(path, "--backend", backend, "--recall", "0.9", "--check")
            self.assertLessEqual(set(RUN_FIELDS), set(got))
            self.assertLessEqual(set(SHAPE_FIELDS), set(got["shape"]))
            self.assertLessEqual(set(CHECK_FIELDS), set(got["check"]))
            self.assertEqual(got["backend"], backend)
            self.assertEqual(got["dtype"], "bf16")
            shape = {"batch": 1, "heads_q": 2, "heads_kv": 2, "len_q": 120, "len_k": 120, "dim": 32}
            self.assertLessEqual(shape.items(), got["shape"].items())
            self.assertEqual((got["rule"], got["target"], got["mass"]), ("recall", 0.9, "exact"))
            self.assertEqual((got["order"], got["grid"], got["block"]), ("diagonal", [2, 6, 10], [64, 128]))
            self.assertEqual(got["blocks_total"], 4)
            self.assertTrue(got["check"]["ok"])
            self.assertEqual(got["check"]["decisions_wrong"], 0)
            self.assertLessEqual(got["check"]["max_abs_error"], got["check"]["max_abs_error_allowed"])
            self.assertGreaterEqual(got["recall_block_min_oracle"], 0.9 - 1e-4)
            self.assertAlmostEqual(got["sparsity"], 1 - got["blocks_kept"] / got["blocks_total"])

    def test_every_rule_and_order(self):
        path = self.make()
        rules = (
            ["--rule", "dense"],
            ["--rule", "blasst", "--threshold", "0.01"],
            ["--rule", "energy", "--threshold", "-4"],
            ["--rule", "recall", "--recall", "0.8"],
            ["--rule", "recall", "--recall", "0.8", "--mass", "estimated"],
        )
        for rule in rules:
            for order in ("diagonal", "raster", "predicted"):
                for cubes in ([], ["--no-cubes"]):
                    got = self.run_json(path, *rule, "--order", order, "--block", "32,32", "--check", *cubes)
                    self.assertTrue(got["check"]["ok"], (rule, order, got["check"]))
                    self.assertEqual(got["grid"], None if cubes else [2, 6, 10])
                    self.assertEqual((got["rule"], got["order"]), (rule[1], order))

    def test_output_file(self):
        path, out = self.make("--dtype", "f32"), self.folder / "out.safetensors"
        done = rfa("run", path, "--rule", "dense", "-o", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        header, data = decode(out)
        self.assertEqual(header["out"]["shape"], [1, 120, 2, 32])
        self.assertEqual(header["out"]["dtype"], "F32")
        self.assertIn("lse", header)
        begin, end = header["out"]["data_offsets"]
        values = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
        self.assertTrue(all(value == value for value in values))
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["out.safetensors", "video.safetensors"])

    def test_other_names_and_axes(self):
        header, data = tensors({"queries": [2, 3, 40, 16], "keys": [2, 3, 50, 16], "values": [2, 3, 50, 8]})
        path = self.write(encode(header, data))
        names = ["--q", "queries", "--k", "keys", "--v", "values"]
        got = self.run_json(path, *names, "--axes", "bhsd", "--check")
        shape = {"batch": 2, "heads_q": 3, "heads_kv": 3, "len_q": 40, "len_k": 50, "dim": 16}
        self.assertLessEqual(shape.items(), got["shape"].items())
        self.assertTrue(got["check"]["ok"])
        self.refused(rfa("run", path), INVALID, "q")

    def test_text_is_for_people(self):
        done = rfa("run", self.make(), "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, b"", "progress is for terminals only")
        for word in (b"recall", b"kept", b"check"):
            self.assertIn(word, done.stdout)

    def test_bad_options(self):
        path = self.make()
        for arguments in (
            ["--recall", "0"], ["--recall", "-1"], ["--recall", "1.01"], ["--recall", "nan"],
            ["--recall", "x"], ["--recall", ""], ["--rule", "guess"], ["--rule", "blasst"],
            ["--order", "random"], ["--mass", "some"], ["--block", "0,128"], ["--block", "64"],
            ["--block", "64,-1"], ["--block", "64,128,1,2"], ["--device", "-1"], ["--threshold", "0.5"],
            ["--rule", "energy", "--threshold", "-3", "--recall", "0.9"], ["--axes", "dhsb"],
            ["--grid", "2,6"],
        ):
            self.refused(rfa("run", path, *arguments), USAGE)

    def test_requests_that_the_library_refuses(self):
        path = self.make()
        self.refused(rfa("run", path, "--backend", "abacus"), NO_DEVICE, "abacus")
        self.refused(rfa("run", path, "--backend", "cpu", "--device", "7"), NO_DEVICE, "7")
        self.refused(rfa("run", path, "--rule", "blasst", "--threshold", "2"), INVALID, "2")
        self.refused(rfa("run", path, "--grid", "2,6,11"), INVALID, "grid")
        self.refused(rfa("run", path, "--order", "predicted", "--block", "64,100"), INVALID, "32")
        self.refused(rfa("run", path, environment={"RFA_BACKEND": "abacus"}), NO_DEVICE, "abacus")

    def test_files_that_are_none(self):
        self.refused(rfa("run", self.folder / "missing"), IO_ERROR, "missing")
        self.refused(rfa("run", self.folder), IO_ERROR)
        self.refused(rfa("run", "/dev/zero"), IO_ERROR)
        os.mkfifo(self.folder / "pipe")
        self.refused(rfa("run", self.folder / "pipe"), IO_ERROR)
        for data in (b"", b"\2\0\0\0", b"\2\0\0\0\0\0\0\0{", b"\xff" * 8 + b"{}", bytes(8), b"text " * 50):
            self.refused(rfa("run", self.write(data)), IO_ERROR)

    def test_headers_that_lie(self):
        good, data = tensors({"q": [1, 4, 1, 2], "k": [1, 4, 1, 2], "v": [1, 4, 1, 2]})
        self.run_json(self.write(encode(good, data)), "--check")
        lies = {
            "truncated data": encode(good, data[:-1]),
            "data to spare": encode(good, data + b"x"),
            "truncated header": encode(good, data)[:100],
            "header length past the end": encode(good, data, length=1 << 40),
            "deep nesting": encode(b'{"q":' + b"[" * 100000 + b"]" * 100000 + b"}"),
        }
        for what, change in {
            "offsets past the end": {"data_offsets": [0, 1 << 40]},
            "negative offsets": {"data_offsets": [-32, 0]},
            "overlapping offsets": {"data_offsets": [16, 48]},
            "reversed offsets": {"data_offsets": [32, 0]},
            "products that overflow": {"shape": [1 << 32, 1 << 32, 1, 1], "data_offsets": [0, 0]},
            "negative lengths": {"shape": [-1, 4, -1, 2]},
            "fractions": {"shape": [1, 4, 1, 2.5]},
        }.items():
            header = json.loads(json.dumps(good))
            header["q"].update(change)
            lies[what] = encode(header, data)
        for what, raw in lies.items():
            with self.subTest(what):
                self.refused(rfa("run", self.write(raw)), IO_ERROR)

    def test_tensors_that_do_not_fit_together(self):
        q, k = [1, 4, 2, 8], [1, 6, 2, 8]
        for what, shapes, code in (
            ("rank", {"q": [4, 2], "k": [6, 2], "v": [6, 2]}, INVALID),
            ("rank of k", {"q": q, "k": [12, 8], "v": k}, INVALID),
            ("heads", {"q": [1, 4, 3, 8], "k": k, "v": k}, INVALID),
            ("heads of v", {"q": q, "k": k, "v": [1, 6, 1, 8]}, INVALID),
            ("dims", {"q": q, "k": [1, 6, 2, 4], "v": k}, INVALID),
            ("lengths of v", {"q": q, "k": k, "v": [1, 5, 2, 8]}, INVALID),
            ("batches", {"q": q, "k": [2, 6, 2, 8], "v": [2, 6, 2, 8]}, INVALID),
            ("no queries", {"q": [1, 0, 2, 8], "k": k, "v": k}, INVALID),
            ("no keys", {"q": q, "k": [1, 0, 2, 8], "v": [1, 0, 2, 8]}, INVALID),
            ("large dims", {"q": [1, 4, 2, 257], "k": [1, 6, 2, 257], "v": k}, UNSUPPORTED),
            ("missing v", {"q": q, "k": k}, INVALID),
        ):
            with self.subTest(what):
                done = rfa("run", self.write(encode(*tensors(shapes))), "-o", self.folder / "out")
                self.refused(done, code)
                self.assertFalse((self.folder / "out").exists())

    def test_dtypes(self):
        shapes = {"q": [1, 4, 1, 2], "k": [1, 4, 1, 2], "v": [1, 4, 1, 2]}
        for dtype in ("F64", "I64", "I32"):
            done = rfa("run", self.write(encode(*tensors(shapes, dtype))))
            self.refused(done, UNSUPPORTED, dtype)
        header, data = tensors(shapes)
        header["k"]["dtype"] = "F16"
        header["k"]["shape"] = [1, 4, 1, 4]
        done = rfa("run", self.write(encode(header, data)))
        self.refused(done, done.returncode)

    def test_nan_and_infinity_are_said(self):
        shapes = {"q": [1, 4, 1, 2], "k": [1, 4, 1, 2], "v": [1, 4, 1, 2]}
        for bad in (float("nan"), float("inf")):
            for index, name in ((1, "q"), (9, "k"), (23, "v")):
                values = [0.0] * 24
                values[index] = bad
                data = struct.pack("<24f", *values)
                self.refused(rfa("run", self.write(encode(*tensors(shapes, values=data)))), INVALID, name)

    def test_unreadable_file(self):
        path = self.make()
        path.chmod(0)
        options = {}
        if os.getuid() == 0:  # root reads everything: be nobody
            self.folder.chmod(0o755)
            options["user"] = pwd.getpwnam("nobody").pw_uid
            try:
                if rfa("--help", **options).returncode != 0:
                    self.skipTest("nobody cannot run the command here")
            except OSError as error:
                self.skipTest(f"nobody cannot run the command here: {error}")
        self.refused(rfa("run", path, **options), IO_ERROR, "ermission")

    def test_output_that_cannot_be_written(self):
        path = self.make()
        for out in ("/nonexistent/out", "/dev/full", self.folder):
            self.refused(rfa("run", path, "-o", out), IO_ERROR)
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        self.refused(rfa("run", path, "-o", self.folder / "out", preexec_fn=limit), IO_ERROR)
        self.assertEqual([entry.name for entry in self.folder.iterdir()], ["video.safetensors"])

    def test_json_to_a_full_disk(self):
        path = self.make()
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [RFA, "run", path, "--json"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
            )
        self.assertEqual(done.returncode, IO_ERROR)
        self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)


class Verify(Command):
    def test_backends_that_are_not_there(self):
        done = rfa("verify", "--backend", "abacus")
        self.assertEqual(done.returncode, NO_DEVICE)
        self.assertIn(b"abacus", done.stderr)

    def test_bad_options(self):
        self.refused(rfa("verify", "--seed", "x"), USAGE)
        self.refused(rfa("verify", "--device", "-1"), USAGE)


def main():
    global RFA
    RFA = os.path.abspath(sys.argv[1])
    for name in ("RFA_BACKEND", "RFA_BACKEND_PATH", "RFA_CPU_ISA"):
        os.environ.pop(name, None)
    result = unittest.main(argv=[sys.argv[0], *sys.argv[2:]], exit=False).result
    failed, skipped = len({id(t) for t, _ in result.failures + result.errors}), len(result.skipped)
    print(f"{max(result.testsRun - failed - skipped, 0)} passed, {failed} failed, {skipped} skipped")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
