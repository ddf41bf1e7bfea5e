"""A float32 forward pass in numpy, as plain as it gets: the reference others are compared with."""
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


class NumpyLlama:
    def __init__(self, folder):
        self.c = json.loads((Path(folder) / "config.json").read_text())
        self.w = {k: v.astype(np.float32) for k, v in load_file(str(Path(folder) / "model.safetensors")).items()}
        self.heads, self.kv_heads = self.c["num_attention_heads"], self.c["num_key_value_heads"]
        self.size = self.c["head_dim"]
        self.reset()

    def reset(self):
        self.cache = [None] * self.c["num_hidden_layers"]
        self.at = 0

    def norm(self, x, name):
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"])
        return x / scale * self.w[name]

    def rotate(self, x):
        half = self.size // 2
        inverse = self.c["rope_theta"] ** (-np.arange(half) * 2.0 / self.size)
        angles = np.outer(np.arange(self.at, self.at + x.shape[1]), inverse)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)

    def attention(self, x, layer):
        p, length = f"model.layers.{layer}.self_attn.", len(x)
        project = lambda name, n: (x @ self.w[p + name].T).reshape(length, n, self.size).swapaxes(0, 1)
        q, k = self.rotate(project("q_proj.weight", self.heads)), self.rotate(project("k_proj.weight", self.kv_heads))
        v = project("v_proj.weight", self.kv_heads)
        if self.cache[layer] is not None:
            k = np.concatenate((self.cache[layer][0], k), 1)
            v = np.concatenate((self.cache[layer][1], v), 1)
        self.cache[layer] = (k, v)
        visible = np.arange(k.shape[1])[None] <= (self.at + np.arange(length))[:, None]
        out = np.empty((length, self.heads, self.size), np.float32)
        for head in range(self.heads):
            kv = head * self.kv_heads // self.heads
            scores = np.where(visible, q[head] @ k[kv].T / np.float32(self.size ** 0.5), -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = (scores / scores.sum(-1, keepdims=True)) @ v[kv]
        return out.reshape(length, -1) @ self.w[p + "o_proj.weight"].T

    def mlp(self, x, layer):
        p = f"model.layers.{layer}.mlp."
        gate = x @ self.w[p + "gate_proj.weight"].T
        return (gate / (1 + np.exp(-gate)) * (x @ self.w[p + "up_proj.weight"].T)) @ self.w[p + "down_proj.weight"].T

    def last_logits(self, ids):
        """Read ids after those read before; the logits that follow the last one."""
        x = self.w["model.embed_tokens.weight"][ids]
        for layer in range(self.c["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            x = x + self.attention(self.norm(x, p + "input_layernorm.weight"), layer)
            x = x + self.mlp(self.norm(x, p + "post_attention_layernorm.weight"), layer)
        self.at += len(ids)
        head = self.w.get("lm_head.weight", self.w["model.embed_tokens.weight"])
        return self.norm(x[-1], "model.norm.weight") @ head.T

    def greedy(self, ids, count):
        """The most likely ids, and by how much each beat the second."""
        self.reset()
        made, margins, feed = [], [], list(ids)
        for _ in range(count):
            logits = self.last_logits(feed)
            top = np.partition(logits, -2)[-2:]
            made.append(int(logits.argmax()))
            margins.append(float(top[1] - top[0]))
            feed = [made[-1]]
        return made, margins
