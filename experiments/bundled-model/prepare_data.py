"""Books in, training arrays out: tokenizer, plain text, conversations, held-out text.

A token array is uint16. Bit 15 set means "no loss on predicting this token" (what the user says).
"""
import argparse
import json
import random
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import AddedToken

import dialogues
from books import join_blocks, read_books, split_book

VOCABULARY = 4096
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NO_LOSS = 0x8000
# The pre-tokenizer GGUF files call "qwen2".
QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                 r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    # All 256 bytes are in the alphabet, so every text has an encoding.
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS), min_frequency=2, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


class Encoder:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end_of_text, self.start, self.end = (tokenizer.token_to_id(s) for s in SPECIALS)

    def plain(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def conversation(self, turns):
        """ChatML, as the chat template writes it; only what the assistant says carries loss."""
        ids = []
        for role, content in turns:
            head = [self.start] + self.plain(role + "\n")
            body = self.plain(content) + [self.end]
            tail = self.plain("\n")
            mute = role != "assistant"
            ids += [i | NO_LOSS for i in head]
            ids += [i | NO_LOSS if mute else i for i in body]
            ids += [i | NO_LOSS for i in tail]
        return ids + [self.end_of_text | NO_LOSS]


def encode_conversations(encoder, talks):
    stream, starts = [], []
    for turns in talks:
        starts.append(len(stream))
        stream += encoder.conversation(turns)
    return np.array(stream, np.uint16), np.array(starts, np.int64)


def talk_through(rng, books, parts, topics):
    """One pass through the given part of every book, conversations of all books shuffled."""
    talks = []
    for book, book_parts, book_topics in zip(books, parts, topics):
        for blocks in book_parts:
            talks += dialogues.conversations(rng, book, blocks, book_topics)
    rng.shuffle(talks)
    return talks


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--war-and-peace", required=True)
    parser.add_argument("--pride-and-prejudice", required=True)
    parser.add_argument("--shakespeare", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--passes", type=int, default=12, help="differently cut passes of conversations")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    books = read_books(args.war_and_peace, args.pride_and_prejudice, args.shakespeare)
    splits = [split_book(book) for book in books]
    train = [s[0] for s in splits]
    train_texts = [join_blocks(part) for parts in train for part in parts]
    topics = [dialogues.Topics("\n".join(map(join_blocks, parts))) for parts in train]

    # Persona sentences join once, so that their words get tokens of decent length.
    rng = random.Random(args.seed)
    small_talk = list(dialogues.persona_conversations(rng, 200))
    tokenizer = train_tokenizer(train_texts + [t for talk in small_talk for _, t in talk])
    tokenizer.save(str(args.out / "tokenizer.json"))
    encoder = Encoder(tokenizer)

    plain = []
    for text in train_texts:
        plain += encoder.plain(text) + [encoder.end_of_text]
    np.save(args.out / "train_plain.npy", np.array(plain, np.uint16))

    talks = []
    for number in range(args.passes):
        rng = random.Random(args.seed + 1 + number)
        once = talk_through(rng, books, train, topics)
        once += dialogues.persona_conversations(rng, len(once) // 16)
        rng.shuffle(once)
        talks += once
    chat, starts = encode_conversations(encoder, talks)
    np.save(args.out / "train_chat.npy", chat)
    np.save(args.out / "train_chat_starts.npy", starts)
    (args.out / "sample_conversations.json").write_text(json.dumps(talks[:200], indent=1))

    meta = {"train_plain_bytes": sum(len(t.encode()) for t in train_texts),
            "train_plain_tokens": len(plain), "train_chat_tokens": len(chat),
            "train_chat_loss_tokens": int((chat < NO_LOSS).sum()),
            "conversations": len(talks), "passes": args.passes}
    for name, at in (("valid", 1), ("test", 2)):
        blocks = [s[at] for s in splits]
        text = join_blocks([join_blocks(b) for b in blocks])
        (args.out / f"{name}.txt").write_text(text, encoding="utf-8")
        ids = encoder.plain(text)
        np.save(args.out / f"{name}_plain.npy", np.array(ids, np.uint16))
        held = talk_through(random.Random(args.seed), books, [[b] for b in blocks], topics)
        stream, _ = encode_conversations(encoder, held)
        np.save(args.out / f"{name}_chat.npy", stream)
        meta |= {f"{name}_plain_bytes": len(text.encode()), f"{name}_plain_tokens": len(ids),
                 f"{name}_chat_tokens": len(stream),
                 f"{name}_books": {b.title: len(join_blocks(x)) for b, x in zip(books, blocks)}}
    (args.out / "meta.json").write_text(json.dumps(meta, indent=1))
    print(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()
