"""What a training process asks of its machine."""

import json
import subprocess
import sys

import pytest

# Six blocks of two megabytes, all freed before the next round, as the tensors of a step are. In a process of its own:
# what it asks of the allocator stays.
FAULTS = """
import json, resource, sys
from clearway.engine.world import keep_freed_memory

def faults():
    before = 0
    for i in range(23):
        if i == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [bytearray(2 << 20) for _ in range(6)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
keep_freed_memory()
sys.stdout.write(json.dumps([plain, faults()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_freed_memory_is_taken_again_without_the_kernel():
    command = [sys.executable, "-c", FAULTS]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    plain, keeping = json.loads(found.stdout)
    assert keeping < plain / 10
