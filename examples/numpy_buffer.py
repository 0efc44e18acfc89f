"""Python's side of numpy_buffer.rs: `python3 numpy_buffer.py make`, `attach NAME` or `open PATH`, as that program calls it.

A block of ROWS x COLUMNS doubles. With numpy it would be `numpy.ndarray((ROWS, COLUMNS), buffer=block.buf)`; the standard
library has `memoryview.cast` for the same.
"""

import fcntl
import mmap
import os
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

ROWS, COLUMNS = 100, 8
BYTES = ROWS * COLUMNS * 8


def make():
    """Makes a block, and is the one that takes it away."""
    block = SharedMemory(create=True, size=BYTES)
    try:
        with memoryview(block.buf)[:BYTES] as raw, raw.cast("d", (ROWS, COLUMNS)) as table:
            for row in range(ROWS):
                for column in range(COLUMNS):
                    table[row, column] = row + column / 8
            say(block.name)
            hear()  # Rust has written
            assert all(table[row, column] == 2 * (row + column / 8) for row in range(ROWS) for column in range(COLUMNS))
            say("doubled")
            hear()  # another Python has attached, and has ended
            table[0, 0] = -1.0
            say("still mine")
            hear()
    finally:
        block.close()
        block.unlink()


def attach(name):
    """Attaches to a block of somebody else's, and leaves it to its maker.

    Before Python 3.13 an attachment is registered as if this process had made the block, and when it ends, its resource tracker
    destroys it under everybody's feet (python/cpython#82300). So it has to be taken off that list.
    """
    if sys.version_info >= (3, 13):
        block = SharedMemory(name, track=False)
    else:
        block = SharedMemory(name)
        resource_tracker.unregister(block._name, "shared_memory")
    with memoryview(block.buf)[:BYTES] as raw, raw.cast("d") as numbers:
        say(sum(numbers))
    block.close()


def open_ours(path):
    """Opens a block that Rust made: a file whose bytes begin after a header (docs/LAYOUT.md). No tracker knows of it."""
    header = 1024
    with open(path, "r+b") as file:
        # "I use it." The lock belongs to the open file, and the mapping has a copy of the descriptor.
        fcntl.flock(file, fcntl.LOCK_SH)
        assert os.fstat(file.fileno()).st_nlink == 1, "swept before it was locked"
        block = mmap.mmap(file.fileno(), 0)
    assert block[:8] == b"multiprc" and block[96:112].rstrip(b"\0") == b"memory" and block[8:16] == b"\1\0\0\0\1\0\0\0"
    with memoryview(block)[header : header + BYTES] as raw, raw.cast("d") as numbers:
        for at in range(len(numbers)):
            numbers[at] += 1.0
    block.close()
    say("added")


def say(what):
    print(what, flush=True)


def hear():
    if not sys.stdin.readline():
        raise SystemExit("the other side has gone")


{"make": make, "attach": attach, "open": open_ours}[sys.argv[1]](*sys.argv[2:])
