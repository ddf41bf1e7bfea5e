"""Copies a GGUF of the llama family whose attention projections are Q5_K or Q4_K, with channels of K made larger.

    python outliers.py IN.gguf OUT.gguf FACTOR

In every head the rows of two rotary pairs are multiplied by FACTOR in K's projection and divided by it in Q's: no score
changes, but K gets channels that are always large, as published models have them. FACTOR: a power of two, which the blocks'
f16 scales take without rounding (but for scales that become subnormal).
"""
import shutil
import sys

import numpy as np
from gguf import GGUFReader

HEAD_DIM = 64
PAIRS = (20, 28)
BLOCK_BYTES = {"Q4_K": 144, "Q5_K": 176}

source, target, factor = sys.argv[1], sys.argv[2], float(sys.argv[3])
shutil.copy(source, target)
reader = GGUFReader(target, "r+")
rows_of_head = [2 * pair + side for pair in PAIRS for side in (0, 1)]
for tensor in reader.tensors:
    if not tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
        continue
    scaling = factor if "attn_k" in tensor.name else 1 / factor
    rows = tensor.data.shape[0]
    for row in (head + at for head in range(0, rows, HEAD_DIM) for at in rows_of_head):
        blocks = tensor.data[row].reshape(-1, BLOCK_BYTES[tensor.tensor_type.name])
        scales = blocks[:, :4].copy().view(np.float16)  # d and dmin
        blocks[:, :4] = (scales.astype(np.float32) * scaling).astype(np.float16).view(np.uint8)
reader.data.flush()
