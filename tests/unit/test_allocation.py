import subprocess
import sys
from pathlib import Path

PROGRAM = """
import ctypes, os, sys
from pathlib import Path
from service.allocation import give_back_large_blocks

if sys.argv[1] == "ours":
    give_back_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def block():
    taken = libc.malloc(4 << 20)
    ctypes.memset(taken, 1, 4 << 20)
    return taken

libc.free(block())  # from which glibc learns
before = resident()
blocks = [(block(), libc.malloc(64 << 10)) for _ in range(32)]  # a small one above each, which stays
for large, _ in blocks:
    libc.free(large)
print((resident() - before) >> 20)
"""


def kept(whose: str) -> int:
    """Mebibytes that stay with the process after 128 have been freed."""
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", PROGRAM, whose], cwd=root, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


def test_large_blocks_that_are_freed_go_back_to_the_system():
    assert kept("ours") < 16
