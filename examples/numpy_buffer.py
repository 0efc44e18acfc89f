"""Python's part of numpy_buffer.rs, which runs it with `make`, `attach NAME` or `open PATH`.

A block of ROWS x COLUMNS doubles. With numpy it would be `numpy.ndarray((ROWS, COLUMNS), buffer=block.buf)`;
the standard library has `memoryview.cast` for the same.
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
    """Makes a block, and removes it at the end."""
    block = SharedMemory(create=True, size=BYTES)
    try:
        with memoryview(block.buf)[:BYTES] as raw, raw.cast("d", (ROWS, COLUMNS)) as table:
            for row in range(ROWS):
                for column in range(COLUMNS):
                    table[row, column] = row + column / 8
            send(block.name)
            wait()  # Rust has written
            for row in range(ROWS):
                assert all(table[row, column] == 2 * (row + column / 8) for column in range(COLUMNS))
            send("doubled")
            wait()  # a second Python has attached, and has ended
            table[0, 0] = -1.0
            send("still mine")
            wait()
    finally:
        block.close()
        block.unlink()


def attach(name):
    """Attaches to a block that another process made, and leaves it to that process.

    Before Python 3.13 an attachment is registered as if this process had made the block. When this process ends,
    its resource tracker destroys the block while others use it (python/cpython#82300). So the block has to be
    unregistered.
    """
    if sys.version_info >= (3, 13):
        block = SharedMemory(name, track=False)
    else:
        block = SharedMemory(name)
        resource_tracker.unregister(block._name, "shared_memory")
    with memoryview(block.buf)[:BYTES] as raw, raw.cast("d") as numbers:
        send(sum(numbers))
    block.close()


def open_rust(path):
    """Opens a block that Rust made: a file whose bytes begin after a header (docs/LAYOUT.md).

    No tracker knows of it.
    """
    header = 1024
    with open(path, "r+b") as file:
        # A shared lock marks the file as in use. It belongs to the open file, and the mapping has a copy of the
        # descriptor.
        fcntl.flock(file, fcntl.LOCK_SH)
        assert os.fstat(file.fileno()).st_nlink == 1, "swept before it was locked"
        block = mmap.mmap(file.fileno(), 0)
    assert block[:8] == b"multiprc" and block[8:16] == b"\1\0\0\0\1\0\0\0"
    assert block[96:112].rstrip(b"\0") == b"memory"
    with memoryview(block)[header : header + BYTES] as raw, raw.cast("d") as numbers:
        for at in range(len(numbers)):
            numbers[at] += 1.0
    block.close()
    send("added")


def send(text):
    print(text, flush=True)


def wait():
    if not sys.stdin.readline():
        raise SystemExit("the Rust program has ended")


{"make": make, "attach": attach, "open": open_rust}[sys.argv[1]](*sys.argv[2:])
