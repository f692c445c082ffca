"""PyNaCl's boxes, timed. Reads lengths, a line each; prints how many nanoseconds it took to open a box of so many bytes
from a client never heard of, and to seal as many to it.
"""

import sys
import time

from nacl.public import Box, PrivateKey

for line in sys.stdin:
    server, client = PrivateKey.generate(), PrivateKey.generate()
    sealed = Box(client, server.public_key).encrypt(bytes(int(line)))
    began = time.perf_counter_ns()
    box = Box(server, client.public_key)
    answer = box.encrypt(box.decrypt(sealed))
    print(time.perf_counter_ns() - began, flush=True)
    assert len(answer) == len(sealed)
