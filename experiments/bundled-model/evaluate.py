"""Held-out loss of a model: bits per byte, loss by position, and samples.

`bits_per_byte` scores every token in windows of 2,048. `perplexity_like_llamacpp` scores what
llama.cpp's llama-perplexity scores (the second half of every window), so that the float model and a
GGUF file can be put side by side.
"""
import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from prepare_data import NO_LOSS, SPECIALS


def token_bytes(tokenizer):
    """How many bytes of text each token stands for (byte-level BPE writes one character a byte)."""
    sizes = [len(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    for special in SPECIALS:
        sizes[tokenizer.token_to_id(special)] = 0
    return np.array(sizes)


@torch.no_grad()
def token_losses(model, ids):
    """Loss in nats of every token but the first, given all before it. ids: (batch, length)."""
    device = next(model.parameters()).device
    ids = torch.as_tensor(np.asarray(ids, np.int64), device=device)
    logits = model(ids[:, :-1]).float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return losses.view(ids.shape[0], -1).cpu().numpy()


def batches(ids, length, rows=8):
    """The whole array in windows of length + 1 tokens that share their end tokens, `rows` at a time.
    The last, shorter window comes alone."""
    starts = list(range(0, len(ids) - length, length))
    for i in range(0, len(starts), rows):
        yield np.stack([ids[s:s + length + 1] for s in starts[i:i + rows]])
    rest = ids[len(starts) * length:]
    if len(rest) > 1:
        yield rest[None]


def bits_per_byte(model, ids, sizes, length=2048):
    nats = count = total_bytes = 0.0
    for batch in batches(ids, length):
        nats += token_losses(model, batch).sum()
        count += batch[:, 1:].size
        total_bytes += sizes[batch[:, 1:]].sum()
    return {"nats_per_token": nats / count, "bits_per_byte": nats / math.log(2) / total_bytes}


def chat_loss(model, stream, length=2048):
    """Nats per token of what the assistant says."""
    nats = count = 0.0
    for batch in batches(stream, length):
        scored = batch[:, 1:] < NO_LOSS
        nats += token_losses(model, batch & (NO_LOSS - 1))[scored].sum()
        count += scored.sum()
    return nats / count


def perplexity_like_llamacpp(model, ids, sizes, context):
    nats = count = total_bytes = 0.0
    first = context // 2
    for i in range(len(ids) // context):
        window = ids[i * context:(i + 1) * context]
        nats += token_losses(model, window[None])[0][first:].sum()
        count += context - 1 - first
        total_bytes += sizes[window[first + 1:]].sum()
    return {"context": context, "perplexity": math.exp(nats / count), "nats_per_token": nats / count,
            "tokens_scored": int(count), "bytes_scored": int(total_bytes),
            "bits_per_byte": nats / math.log(2) / total_bytes}


def loss_by_position(model, id_arrays, context=8192, stride=512, buckets=8):
    """Mean loss by position in the context. Every window is full, and windows overlap by all but
    `stride`, so the buckets average over nearly the same text."""
    rows = []
    for ids in id_arrays:
        for i in range(0, len(ids) - context, stride):
            rows.append(token_losses(model, ids[None, i:i + context + 1])[0])
    mean = np.mean(rows, axis=0)
    edges = np.linspace(0, context, buckets + 1).astype(int)
    return {"windows": len(rows), "stride": stride,
            "nats_per_token": {f"{a}-{b}": float(mean[a:b].mean()) for a, b in zip(edges, edges[1:])}}


@torch.no_grad()
def generate(model, ids, limit, stop, temperature=0.7, top_p=0.9, seed=0):
    device = next(model.parameters()).device
    picker = torch.Generator().manual_seed(seed)
    pasts = [{} for _ in model.model.layers]
    out, feed, at = [], list(ids), 0
    while len(out) < limit:
        logits = model(torch.tensor([feed], device=device), pasts, at)[0, -1].float().cpu()
        at += len(feed)
        if temperature == 0:
            token = int(logits.argmax())
        else:
            p, order = torch.softmax(logits / temperature, -1).sort(descending=True)
            p[p.cumsum(-1) - p > top_p] = 0
            token = int(order[torch.multinomial(p / p.sum(), 1, generator=picker)])
        if token == stop:
            return out, True
        out.append(token)
        feed = [token]
    return out, False


PROMPTS = ["Hello", "Who are you?", "Tell me about the prince", "Tell me about the king.",
           "Who is Natasha?", "What is love?", "Write a scene between Romeo and Juliet.",
           "My lord, the enemy is at the gates!", "How are you?", "What is the capital of Spain?"]


def chat_ids(tokenizer, messages):
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return tokenizer.encode(text + "<|im_start|>assistant\n", add_special_tokens=False).ids


def chat_samples(model, tokenizer, prompts=PROMPTS, seeds=(0,), temperature=0.7, limit=400):
    """Answers, and whether each one came to its own end within the limit."""
    stop, samples = tokenizer.token_to_id("<|im_end|>"), []
    for prompt in prompts:
        for seed in seeds:
            ids, ended = generate(model, chat_ids(tokenizer, [("user", prompt)]), limit, stop,
                                  temperature, seed=seed)
            samples.append({"user": prompt, "seed": seed, "temperature": temperature,
                            "tokens": len(ids), "ended": ended, "assistant": tokenizer.decode(ids)})
    return samples


def main():
    from tokenizers import Tokenizer
    from model import load_hf
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--data", required=True, type=Path, help="what prepare_data.py wrote")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--split", default="test", choices=["valid", "test"])
    parser.add_argument("--positions", action="store_true", help="also the loss by position (slow on a CPU)")
    parser.add_argument("--samples", action="store_true")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    model = load_hf(args.model, args.device)
    tokenizer = Tokenizer.from_file(str(args.data / "tokenizer.json"))
    sizes = token_bytes(tokenizer)
    ids = np.load(args.data / f"{args.split}_plain.npy")
    result = {"split": args.split, "all_tokens": bits_per_byte(model, ids, sizes),
              "assistant_nats_per_token": chat_loss(model, np.load(args.data / f"{args.split}_chat.npy")),
              "like_llamacpp": [perplexity_like_llamacpp(model, ids, sizes, n) for n in (512, 2048, 8192)]}
    if args.positions:
        both = [np.load(args.data / f"{s}_plain.npy") for s in ("valid", "test")]
        result["by_position_valid_and_test"] = loss_by_position(model, both)
    if args.samples:
        result["samples"] = chat_samples(model, tokenizer)
    text = json.dumps(result, indent=1, default=float)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
