#!/usr/bin/env python3
"""Tests of `rfa bench`: its reports, its peer (played by a script), its refusals.

usage: test_bench.py path/to/rfa [unittest arguments]
"""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

RFA = None
USAGE, IO_ERROR, UNSUPPORTED, NO_DEVICE = 2, 16, 12, 14
SMALL = ["--grid", "2,8,8", "--heads", "1", "--dim", "32", "--rounds", "3", "--backend", "cpu"]

# Speaks like tools/peer_torch.py, which it gets as its first argument.
PEER = """#!/usr/bin/env python3
import json, os, sys
script, path, device, threads, mask = sys.argv[1:6]
log = open(os.environ["PEER_LOG"], "a")
raw = open(path, "rb").read()
header = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
q = header["q"]
log.write("%s %s %s %s %s %s\\n" % (os.path.basename(script), device, threads, mask, q["dtype"],
                                   q["shape"]))
manner = os.environ.get("PEER_MANNER", "")
if manner == "error":
    print("error there is no torch here", flush=True)
elif manner == "none":
    print("ready", flush=True)
elif manner == "nonsense":
    print("hello", flush=True)
elif manner != "dies":
    print("ready torch-one torch-two", flush=True)
    for line in sys.stdin:
        word, name, calls = line.split()
        log.write("%s %s %s\\n" % (word, name, calls))
        log.flush()
        if manner == "stops":
            break
        print({"nan": "nan", "zero": "0"}.get(manner, "1e-3" if name == "torch-one" else "2e-3"),
              flush=True)
"""


def bench(*arguments, environment=None):
    return subprocess.run(
        [RFA, "bench", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        timeout=120,
        check=False,
    )


class Reports(unittest.TestCase):
    def rows(self, *arguments):
        done = bench(*SMALL, "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["rows"]

    def test_json(self):
        rows = self.rows("--dtype", "bf16,f32", "--variants", "dense,recall:0.9")
        self.assertEqual(
            [(r["dtype"], r["variant"]) for r in rows],
            [("f32", "dense"), ("f32", "recall:0.9"), ("bf16", "dense"), ("bf16", "recall:0.9")],
        )
        for row in rows:
            self.assertIsNone(row["failure"])
            self.assertEqual((row["batch"], row["heads"], row["len"], row["dim"]), (1, 1, 128, 32))
            self.assertEqual(row["rounds"], 3)
            self.assertTrue(0 < row["ms_min"] <= row["ms_median"] <= row["ms_max"], row)
            # Of one unit and one size: on a CPU a call returns when it is done.
            self.assertTrue(1 / 8 < row["host_us"] / (1e3 * row["ms_median"]) < 8, row)
            operations = 4 * row["heads"] * row["len"] ** 2 * row["dim"]
            self.assertAlmostEqual(row["tflops"] * row["ms_median"] * 1e9 / operations, 1, 3)
            self.assertLessEqual(row["blocks_kept"], row["blocks_visited"])
            self.assertGreaterEqual(row["recall_mean"], 0.9)
            self.assertGreater(row["speedup_dense"], 0)
            self.assertIsNone(row["speedup_peer"])
        self.assertEqual(rows[0]["speedup_dense"], 1)
        self.assertEqual(rows[0]["blocks_kept"], rows[0]["blocks_total"])

    def test_csv_has_a_value_for_every_column(self):
        done = bench(*SMALL, "--csv", "--variants", "dense,energy:-6")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        self.assertEqual([r["variant"] for r in rows], ["dense", "energy:-6"])
        for row in rows:
            self.assertNotIn(None, row)
            self.assertNotIn(None, row.values())
            self.assertGreater(float(row["ms_median"]), 0)
            self.assertGreater(float(row["host_us"]), 0)

    def test_markdown_and_table(self):
        done = bench(*SMALL, "--markdown", "--variants", "dense")
        lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
        self.assertEqual(len(lines), 3, done.stdout)
        self.assertEqual(len({line.count("|") for line in lines}), 1, done.stdout)
        done = bench(*SMALL, "--variants", "dense")
        self.assertIn("host us", done.stdout.splitlines()[0])
        self.assertIn("device: ", done.stdout)

    def test_shape_instead_of_a_video(self):
        done = bench("--shape", "2,3,80,16", "--rounds", "1", "--backend", "cpu,reference", "--json",
                     "--variants", "dense")
        rows = json.loads(done.stdout)["rows"]
        self.assertEqual([r["backend"] for r in rows], ["cpu", "reference"])
        self.assertEqual((rows[0]["batch"], rows[0]["heads"], rows[0]["len"]), (2, 3, 80))

    def test_packed(self):
        options = ["--packed", "80,16,1,33", "--heads", "2", "--dim", "32", "--backend", "cpu",
                   "--rounds", "2", "--variants", "dense,recall:0.9", "--dtype", "bf16,f32"]
        for causal in ([], ["--causal"]):
            done = bench(*options, *causal, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            for row in json.loads(done.stdout)["rows"]:
                self.assertIsNone(row["failure"])
                self.assertTrue(row["packed"])
                self.assertEqual((row["batch"], row["len"]), (4, 130))
                pairs = sum(n * (n + 1) / 2 if causal else n * n for n in (80, 16, 1, 33))
                self.assertAlmostEqual(row["tflops"] * row["ms_median"] * 1e9 / (8 * 32 * pairs),
                                       1, 3)
                self.assertEqual(row["blocks_total"], 2 * (2 + 1 + 1 + 1))
        done = bench(*options)
        self.assertIn("inside the B sequences", done.stdout)

    def test_order_and_blocks(self):
        row = self.rows("--order", "predicted", "--block", "32,64,64", "--variants", "dense")[0]
        self.assertEqual(row["blocks_total"], 4 * 2)

    def test_list_holds_a_share_of_the_blocks(self):
        dense, half = self.rows("--block", "32,32,64", "--variants", "dense,list:0.5")
        self.assertIsNone(half["failure"])
        self.assertEqual(2 * half["blocks_visited"], dense["blocks_visited"])
        self.assertEqual(half["blocks_kept"], half["blocks_visited"])

    def test_refusals(self):
        for options in (
            ["--json", "--csv"],
            ["--preset", "tiny", "--grid", "1,2,3"],
            ["--shape", "1,1,64,16", "--heads", "2"],
            ["--shape", "1,1,64,16", "--packed", "64"],
            ["--packed", "64,0"],
            ["--packed", "64", "--kinds", "sink"],
            ["--packed", "64", "--peer", "torch"],
            ["--packed", "64", "--variants", "dense,list:0.5"],
            ["--packed", "2147483647,1"],
            ["--preset", "huge"],
            ["--kinds", "round"],
            ["--variants", "recall:1.5"],
            ["--variants", "list"],
            ["--variants", "list:0"],
            ["--variants", "list:1.5"],
            ["--variants", "list:0.5:scaled"],
            ["--variants", "recall"],
            ["--variants", "dense:1"],
            ["--variants", "cheap:1"],
            ["--variants", ""],
            ["--block", "64"],
            ["--rounds", "0"],
        ):
            done = bench(*options)
            self.assertEqual(done.returncode, USAGE, options)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for options in (["--backend", "abacus"], ["--dtype", "f8"], ["--device", "7"]):
            done = bench(*options)
            self.assertEqual(done.returncode, NO_DEVICE, options)


class Peer(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        self.python, self.log = folder / "python", folder / "log"
        self.python.write_text(PEER)
        self.python.chmod(0o755)

    def bench(self, *arguments, manner=""):
        return bench(*SMALL, "--variants", "dense,recall:0.9", "--peer", "torch", "--python",
                     self.python, *arguments,
                     environment={"PEER_LOG": str(self.log), "PEER_MANNER": manner})

    def test_ratios(self):
        done = self.bench("--json", "--threads", "2", "--dtype", "f16")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = json.loads(done.stdout)["rows"]
        self.assertEqual([r["backend"] for r in rows], ["cpu", "cpu", "torch", "torch"])
        self.assertEqual([r["variant"] for r in rows[2:]], ["torch-one", "torch-two"])
        self.assertEqual((rows[2]["ms_median"], rows[3]["ms_median"]), (1, 2))
        for row in rows[:2]:  # over the faster one
            self.assertAlmostEqual(row["speedup_peer"] * row["ms_median"], 1, 6)
        log = self.log.read_text().splitlines()
        self.assertEqual(log[0], "peer_torch.py cpu 2 none F16 [1, 128, 1, 32]")
        # A first call, one that is timed to see how many make a round, three rounds;
        # in turn with each other.
        self.assertEqual([line for line in log if "torch-one" in line],
                         2 * ["time torch-one 1"] + 3 * ["time torch-one 20"])
        self.assertEqual(log[-2:], ["time torch-one 20", "time torch-two 10"])

    def test_causal(self):
        done = self.bench("--json", "--dtype", "f16", "--causal")
        self.assertEqual(done.returncode, 0, done.stderr)
        dense = json.loads(done.stdout)["rows"][0]
        self.assertTrue(dense["causal"])
        pairs = 128 * 129 / 2  # unmasked
        self.assertAlmostEqual(dense["tflops"] * dense["ms_median"] / (4 * pairs * 32 / 1e9), 1, 6)
        self.assertIn(" causal ", self.log.read_text().splitlines()[0])

    def test_rounds_begin_with_another_row_each(self):
        done = self.bench("--dtype", "f16", "--rounds", "4")
        self.assertEqual(done.returncode, 0, done.stderr)
        log = self.log.read_text().splitlines()
        self.assertEqual(log[-2:], ["time torch-two 10", "time torch-one 20"])

    def test_a_peer_that_fails(self):
        for manner, code, words in (
            ("error", IO_ERROR, "there is no torch here"),
            ("dies", IO_ERROR, "stopped"),
            ("stops", IO_ERROR, "stopped"),
            ("nonsense", IO_ERROR, "hello"),
            ("none", UNSUPPORTED, "no implementation"),
            ("nan", IO_ERROR, "nan"),
            ("zero", IO_ERROR, "0"),
        ):
            done = self.bench(manner=manner)
            self.assertEqual(done.returncode, code, (manner, done.stderr))
            self.assertIn(words, done.stderr, manner)
        done = bench(*SMALL, "--peer", "torch", "--python", self.python.parent / "absent")
        self.assertEqual(done.returncode, IO_ERROR)

    def test_leaves_no_tensors_behind(self):
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
        before = {p for p in os.listdir(folder) if p.startswith("rfa-peer-")}
        for manner in ("", "dies", "error"):
            self.bench(manner=manner)
        after = {p for p in os.listdir(folder) if p.startswith("rfa-peer-")}
        self.assertEqual(after - before, set())


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
