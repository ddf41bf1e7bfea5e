"""Put the tokenizer and the chat template beside a trained config.json and model.safetensors."""
import argparse
import json
import shutil
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True, type=Path, help="folder train.py wrote")
    parser.add_argument("--data", required=True, type=Path, help="folder prepare_data.py wrote")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for source in (args.run / "config.json", args.run / "model.safetensors", args.data / "tokenizer.json"):
        shutil.copy(source, args.out)
    template = (Path(__file__).parent / "chat_template.jinja").read_text().rstrip("\n")
    added = {str(t["id"]): t for t in json.loads((args.out / "tokenizer.json").read_text())["added_tokens"]}
    decoder = {i: {k: v for k, v in t.items() if k != "id"} for i, t in added.items()}
    (args.out / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192, "add_bos_token": False,
        "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False, "added_tokens_decoder": decoder,
        "chat_template": template}, indent=1))
    eos = json.loads((args.out / "config.json").read_text())["eos_token_id"]
    (args.out / "generation_config.json").write_text(json.dumps(
        {"eos_token_id": eos, "do_sample": True, "temperature": 0.6, "top_p": 0.9}, indent=1))


if __name__ == "__main__":
    main()
