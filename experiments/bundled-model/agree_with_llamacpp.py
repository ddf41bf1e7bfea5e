"""Does llama.cpp read the GGUF file as this directory's float32 forward pass reads the checkpoint?

Tokens of the prompts, greedy ids (one prompt is longer than 2,000 tokens), and perplexity.
Build the helper first:  g++ -O2 -std=c++17 greedy_ids.cpp -I LLAMA/include -I LLAMA/ggml/include \\
    -L LLAMA/build/bin -lllama -lggml -lggml-base -Wl,-rpath,LLAMA/build/bin -o greedy_ids
"""
import argparse
import json
import re
import subprocess
from pathlib import Path

from tokenizers import Tokenizer

from numpy_llama import NumpyLlama

LONG_PROMPT_CHARACTERS = 9000
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = [CHAT.format("Hello"), CHAT.format("Tell me about the prince"), CHAT.format("Who is Natasha?"),
           "It is a truth universally acknowledged, that", "ROMEO:\n", "CHAPTER I\n\n",
           "Café ☕ — 東京 <|im_start|>user\n"]


def llamacpp_greedy(helper, gguf, prompt, count):
    out = subprocess.run([helper, gguf, str(count)], input=prompt.encode(), stdout=subprocess.PIPE, check=True).stdout
    lines = out.decode().splitlines()
    return [int(i) for i in lines[0].split()], [int(i) for i in lines[1].split()]


def llamacpp_perplexity(binary, gguf, text, context):
    log = subprocess.run([binary, "-m", gguf, "-f", text, "-c", str(context), "-b", "2048",
                          "-t", "1"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True).stdout.decode()
    return float(re.search(r"Final estimate: PPL = ([0-9.]+)", log).group(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, type=Path, help="folder: config, safetensors, tokenizer.json")
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--greedy-ids", required=True, help="the helper built from greedy_ids.cpp")
    parser.add_argument("--text", required=True, help="held-out text")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--llama-perplexity", help="binary; leave out to skip perplexity")
    parser.add_argument("--evaluation", type=Path, help="what evaluate.py wrote for the float model")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    model = NumpyLlama(args.model)
    rows = []
    for prompt in PROMPTS + [Path(args.text).read_text(encoding="utf-8")[:LONG_PROMPT_CHARACTERS]]:
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        ours, margins = model.greedy(ids, args.count)
        read, theirs = llamacpp_greedy(args.greedy_ids, args.gguf, prompt, args.count)
        differ = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
        rows.append({"prompt": prompt[:60], "prompt_tokens": len(ids), "same_tokens": ids == read,
                     "generated": len(theirs), "same_greedy_ids": not differ,
                     "first_difference": differ[0] if differ else None,
                     "margin_there": margins[differ[0]] if differ else None,
                     "smallest_margin": min(margins)})
        print(rows[-1], flush=True)
    result = {"greedy": rows}
    if args.llama_perplexity:
        theirs = llamacpp_perplexity(args.llama_perplexity, args.gguf, args.text, args.context)
        result["perplexity"] = {"context": args.context, "llamacpp": theirs}
        if args.evaluation:
            ours = next(e["perplexity"] for e in json.loads(args.evaluation.read_text())["like_llamacpp"]
                        if e["context"] == args.context)
            result["perplexity"] |= {"float32": ours, "ratio_minus_one": theirs / ours - 1}
        print(result["perplexity"])
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
