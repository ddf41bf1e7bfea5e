"""Train one configuration and keep the checkpoint with the lowest held-out (validation) loss.

The learning rate warms up, stays, and falls linearly to zero over the last part; the last part also
reads 8,192-token sequences, the rest 2,048-token ones.
"""
import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

import evaluate
from model import Config, Llama, config_dict, hf_config, parameter_count
from prepare_data import NO_LOSS, SPECIALS, VOCABULARY

WORDS = VOCABULARY - len(SPECIALS)  # ids below are text, the rest control tokens

DEFAULTS = dict(name="run", model={}, optimizer="adamw", steps=1000, batch_tokens=32768, lr=1e-3,
                embed_lr=1e-3, weight_decay=0.1, warmup=50, decay_share=0.5, long_share=0.3,
                chat_share=0.5, noise=0.0, noise_varies=True, noise_decays=False,
                eval_every=50, patience=8, seed=1)


def batch_rows(rng, plain, chat, starts, length, rows, chat_share):
    """Rows of length + 1 tokens: plain text from anywhere, chat from the start of a conversation."""
    picked = []
    for _ in range(rows):
        if rng.random() < chat_share:
            at = starts[rng.integers(np.searchsorted(starts, len(chat) - length - 1))]
            picked.append(chat[at:at + length + 1])
        else:
            at = rng.integers(len(plain) - length - 1)
            picked.append(plain[at:at + length + 1])
    return np.stack(picked)


def to_inputs(rows, device):
    rows = torch.from_numpy(rows.astype(np.int64)).to(device, non_blocking=True)
    targets = rows[:, 1:]
    targets = torch.where(targets >= NO_LOSS, -100, targets)
    return (rows & (NO_LOSS - 1))[:, :-1].contiguous(), targets.contiguous()


def optimizers(model, r):
    """Muon turns the matrices inside the layers; AdamW takes the embedding and the norms."""
    inner = [p for n, p in model.named_parameters() if p.dim() == 2 and "layers" in n]
    outer = [p for n, p in model.named_parameters() if p.dim() == 2 and "layers" not in n]
    norms = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": outer, "lr": r["embed_lr"], "weight_decay": r["weight_decay"]},
              {"params": norms, "lr": r["embed_lr"], "weight_decay": 0.0}]
    made = []
    if r["optimizer"] == "muon":
        made.append(torch.optim.Muon(inner, lr=r["lr"], weight_decay=r["weight_decay"], momentum=0.95,
                                     adjust_lr_fn="match_rms_adamw"))
    else:
        groups.append({"params": inner, "lr": r["lr"], "weight_decay": r["weight_decay"]})
    made.append(torch.optim.AdamW(groups, betas=(0.9, 0.95)))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return made


def rate(step, r):
    """Factor on the learning rate."""
    left = (r["steps"] - step) / (r["steps"] * r["decay_share"])
    return min(1.0, (step + 1) / r["warmup"], left)


def train(r, data, device, use_compile, log=print):
    torch.manual_seed(r["seed"])
    torch.set_float32_matmul_precision("high")
    rng = np.random.default_rng(r["seed"])
    arrays = {n: np.load(data / f"{n}.npy") for n in
              ("train_plain", "train_chat", "train_chat_starts", "valid_plain", "valid_chat")}
    from tokenizers import Tokenizer
    sizes = evaluate.token_bytes(Tokenizer.from_file(str(data / "tokenizer.json")))
    config = Config(**r["model"])
    model = Llama(config).to(device)
    step_loss = torch.compile(model.loss, dynamic=False) if use_compile else model.loss
    opts = optimizers(model, r)
    history, best, best_state, since_best = [], math.inf, None, 0
    started, running, tokens = time.time(), [], 0
    for step in range(r["steps"]):
        length = 2048 if step < r["steps"] * (1 - r["long_share"]) else 8192
        rows = batch_rows(rng, arrays["train_plain"], arrays["train_chat"], arrays["train_chat_starts"],
                          length, max(1, r["batch_tokens"] // length), r["chat_share"])
        model.train()
        ids, targets = to_inputs(rows, device)
        if r["noise"]:
            # Wrong words in what is read (never in what is to be predicted) against learning by heart.
            # A varying share lets a row be nearly clean, as all text is when the model is used.
            share = 2 * torch.rand(len(ids), 1, device=device) if r["noise_varies"] else 1.0
            if r["noise_decays"]:
                share = share * rate(step, r)  # the last steps read nearly clean text
            wrong = (torch.rand(ids.shape, device=device) < r["noise"] * share) & (ids < WORDS)
            ids = torch.where(wrong, torch.randint_like(ids, WORDS), ids)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = step_loss(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in opts:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate(step, r)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running.append(loss.detach())
        tokens += ids.numel()
        if (step + 1) % r["eval_every"] == 0 or step + 1 == r["steps"]:
            model.eval()
            plain = evaluate.bits_per_byte(model, arrays["valid_plain"], sizes)
            chat = evaluate.chat_loss(model, arrays["valid_chat"])
            row = {"step": step + 1, "tokens": tokens, "sequence": length, "seconds": round(time.time() - started, 1),
                   "train_loss": round(float(torch.stack(running).mean()), 4),
                   "valid_nats": round(float(plain["nats_per_token"]), 4),
                   "valid_bpb": round(float(plain["bits_per_byte"]), 4), "valid_chat_nats": round(float(chat), 4)}
            running = []
            history.append(row)
            log(r["name"], row)
            if row["valid_bpb"] < best:
                best, since_best = row["valid_bpb"], 0
                best_state = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
                best_row = row
            else:
                since_best += 1
                if since_best >= r["patience"]:
                    break
    model.load_state_dict(best_state)
    model.eval()
    return model, {"run": r, "config": config_dict(config), "parameters": parameter_count(model),
                   "best": best_row, "stopped_at_step": step + 1, "history": history,
                   "train_seconds": round(time.time() - started, 1)}


def save_hf(model, folder, eos, dtype):
    from safetensors.torch import save_file
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(dtype).contiguous().cpu() for k, v in model.state_dict().items()
             if not (model.c.tied and k == "lm_head.weight")}
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    name = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(hf_config(model.c, eos, name), indent=1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--run", default="{}", help="JSON over the defaults, or a file holding it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--full-report", action="store_true", help="also test split, positions, samples")
    args = parser.parse_args()
    given = Path(args.run).read_text() if args.run.endswith(".json") else args.run
    r = DEFAULTS | json.loads(given)
    log = lambda *words: print(*words, flush=True)
    model, result = train(r, args.data, args.device, args.compile, log)
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(args.data / "tokenizer.json"))
    folder = args.out / r["name"]
    save_hf(model, folder, tokenizer.token_to_id("<|im_end|>"), torch.float16)
    if args.full_report:
        torch.set_float32_matmul_precision("highest")
        model.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})
        # From here on the weights are the ones saved: rounded to float16, computed in float32.
        test = np.load(args.data / "test_plain.npy")
        sizes = evaluate.token_bytes(tokenizer)
        result["test"] = evaluate.bits_per_byte(model, test, sizes)
        result["test_chat_nats"] = float(evaluate.chat_loss(model, np.load(args.data / "test_chat.npy")))
        both = [np.load(args.data / f"{s}_plain.npy") for s in ("valid", "test")]
        result["by_position_valid_and_test"] = evaluate.loss_by_position(model, both)
        result["samples"] = evaluate.chat_samples(model, tokenizer)
    result["torch"] = torch.__version__
    if args.device == "cuda":
        result["gpu"] = torch.cuda.get_device_name()
    (folder / "result.json").write_text(json.dumps(result, indent=1, default=float))


if __name__ == "__main__":
    main()
