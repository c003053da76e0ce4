#!/usr/bin/env python3
"""Writes an assembler file that puts a file into the module, as a symbol.

usage: embed.py SYMBOL FILE OUTPUT
"""
import os
import sys

symbol, path, output = sys.argv[1:]
text = f"""\
    .section .rodata
    .balign 64
    .globl {symbol}
    .hidden {symbol}
{symbol}:
    .incbin "{os.path.abspath(path)}"
    .byte 0
#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack,"",%progbits
#endif
"""
with open(output, "w", encoding="utf-8") as file:
    file.write(text)
