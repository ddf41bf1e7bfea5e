"""A Llama in plain PyTorch. Weight names and the rotary convention are those of the Hugging Face layout."""
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab: int = 4096
    hidden: int = 512
    ffn: int = 1280
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 64
    rope_base: float = 50000.0
    eps: float = 1e-5
    context: int = 8192
    tied: bool = True
    dropout: float = 0.2


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps).to(x.dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-b, a), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden, c.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)

    def forward(self, x, cos, sin, past=None):
        batch, length, _ = x.shape
        split = lambda t, n: t.view(batch, length, n, self.c.head_dim).transpose(1, 2)
        q = rotate(split(self.q_proj(x), self.c.heads), cos, sin)
        k = rotate(split(self.k_proj(x), self.c.kv_heads), cos, sin)
        v = split(self.v_proj(x), self.c.kv_heads)
        if past is not None:  # generation: keep keys and values of what was read
            if "k" in past:
                k, v = torch.cat((past["k"], k), 2), torch.cat((past["v"], v), 2)
            past["k"], past["v"] = k, v
        groups = self.c.heads // self.c.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1,
                                           dropout_p=self.c.dropout if self.training else 0.0)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden, c.ffn, bias=False)
        self.up_proj = nn.Linear(c.hidden, c.ffn, bias=False)
        self.down_proj = nn.Linear(c.ffn, c.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden, c.eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden, c.eps)
        self.mlp = MLP(c)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x, cos, sin, past=None):
        x = x + self.drop(self.self_attn(self.input_layernorm(x), cos, sin, past))
        return x + self.drop(self.mlp(self.post_attention_layernorm(x)))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab, c.hidden)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = RMSNorm(c.hidden, c.eps)


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.model = Body(c)
        self.lm_head = nn.Linear(c.hidden, c.vocab, bias=False)
        self.drop = nn.Dropout(c.dropout)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / (2 * c.layers) ** 0.5 if into_residual else 0.02)
        if c.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        inverse = c.rope_base ** (-torch.arange(0, c.head_dim, 2).double() / c.head_dim)
        angles = torch.outer(torch.arange(c.context).double(), inverse)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def hidden(self, ids, pasts=None, start=0):
        cos, sin = self.cos[start:start + ids.shape[1]], self.sin[start:start + ids.shape[1]]
        x = self.drop(self.model.embed_tokens(ids))
        for index, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, pasts[index] if pasts else None)
        return self.model.norm(x)

    def forward(self, ids, pasts=None, start=0):
        return self.lm_head(self.hidden(ids, pasts, start))

    def loss(self, ids, targets):
        """Mean cross-entropy; a target of -100 carries none."""
        logits = self(ids).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())  # a tied matrix is one parameter here


def hf_config(c, eos, dtype):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": c.vocab, "hidden_size": c.hidden, "intermediate_size": c.ffn,
            "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
            "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim, "rms_norm_eps": c.eps,
            "rope_theta": c.rope_base, "rope_scaling": None, "max_position_embeddings": c.context,
            "tie_word_embeddings": c.tied, "attention_bias": False, "mlp_bias": False,
            "bos_token_id": None, "eos_token_id": eos, "torch_dtype": dtype}


def load_hf(folder, device="cpu"):
    """The model of a folder with config.json and model.safetensors, in float32."""
    from safetensors.torch import load_file
    j = json.loads((Path(folder) / "config.json").read_text())
    c = Config(j["vocab_size"], j["hidden_size"], j["intermediate_size"], j["num_hidden_layers"],
               j["num_attention_heads"], j["num_key_value_heads"], j["head_dim"], j["rope_theta"],
               j["rms_norm_eps"], j["max_position_embeddings"], j["tie_word_embeddings"], 0.0)
    model = Llama(c)
    state = {k: v.float() for k, v in load_file(str(Path(folder) / "model.safetensors")).items()}
    if c.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model.to(device).eval()


def config_dict(c):
    return asdict(c)
