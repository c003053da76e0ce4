#!/usr/bin/env python3
"""Says in plain sentences what two `rfa run --json` results, dense and sparse, show."""

import json
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        dense = json.load(file)
    with open(sys.argv[2], encoding="utf-8") as file:
        sparse = json.load(file)
    check, shape = sparse["check"], sparse["shape"]
    block_q, block_k = sparse["block"]
    print(f"""
What was run
  Attention over {shape["len_q"]:,} tokens, {shape["heads_q"]} heads of dim {shape["dim"]}, {sparse["dtype"]}, on backend \
{sparse["backend"]} ({sparse["device"]}).
  Every query looks at every key; the work is cut into blocks of {block_q} queries x {block_k} keys.

Time
  Dense (all {dense["blocks_total"]:,} blocks): {dense["time_ms"] / 1000:.2f} s.
  Sparse (recall {sparse["target"]:g}): {sparse["time_ms"] / 1000:.2f} s, \
{dense["time_ms"] / sparse["time_ms"]:.2f} times as fast.

Skipped
  {100 * sparse["sparsity"]:.1f} % of the blocks were skipped: they carry little of the softmax's weight.

Recall
  Of the attention weight, {100 * sparse["recall_mean_oracle"]:.2f} % was kept on average, and at least \
{100 * sparse["recall_block_min_oracle"]:.2f} % in
  every block of queries (the target is {100 * sparse["target"]:g} %). Both are measured by a float64 program
  that computes all the weights. No head was tuned: the target is all that was set.

Check
  That program also took each of the {check["decisions"]:,} keep-or-skip decisions again: \
{check["decisions_wrong"]:,} differ.
  With the same blocks kept, the largest difference in any output number is {check["max_abs_error"]:.2g}
  (rounding allows {check["max_abs_error_allowed"]:.2g}).
  {"The result is right." if check["ok"] else "THE RESULT IS WRONG."}""")
    return 0 if check["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
