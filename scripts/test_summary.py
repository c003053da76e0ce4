#!/usr/bin/env python3
"""Prints each test program's own summary from Meson's testlog.json files, then,
alone on the last line, the sum: "N passed, N failed, N skipped".

Programs close either with Criterion's synthesis or with such a line of their own;
for others the exit status counts as one test. Exits 1 if anything failed, or if
no test ran at all.
"""

import json
import re
import sys

CRITERION = re.compile(r"Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")
PLAIN = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$", re.MULTILINE)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def counts_of(test):
    """(passed, failed, skipped, the line to show) of one test program."""
    text = ANSI.sub("", test.get("stdout", "") + "\n" + test.get("stderr", ""))
    ok = test["result"] in ("OK", "EXPECTEDFAIL")
    if test["result"] == "SKIP":
        reasons = [line for line in text.splitlines() if "SKIP" in line]
        return 0, 0, 1, reasons[-1] if reasons else "skipped"
    criterion = CRITERION.findall(text)
    plain = PLAIN.findall(text)
    if criterion:
        tested, passed, failing, crashing = map(int, criterion[-1])
        failed, skipped = failing + crashing, 0
        line = f"Tested: {tested} | Passing: {passed} | Failing: {failing} | Crashing: {crashing}"
    elif plain:
        passed, failed, skipped = (int(n or 0) for n in plain[-1])
        line = f"{passed} passed, {failed} failed, {skipped} skipped"
    else:
        passed, failed, skipped = (1, 0, 0) if ok else (0, 1, 0)
        line = test["result"]
    if not ok and failed == 0:
        failed, line = 1, f"{line} (but {test['result']}, exit status {test.get('returncode')})"
    return passed, failed, skipped, line


def main():
    total = [0, 0, 0]
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as log:
            tests = [json.loads(line) for line in log if line.strip()]
        for test in sorted(tests, key=lambda t: t["name"]):
            *counts, line = counts_of(test)
            total = [a + b for a, b in zip(total, counts)]
            print(f"{test['name'].split(' / ')[-1]}: {line} ({test['duration']:.1f} s)")
    print("%d passed, %d failed, %d skipped" % tuple(total))
    return 1 if total[1] or total[0] == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
