"""Read the three public-domain books, tidy their typography, and cut out the held-out part.

A book becomes a list of blocks. A block is one paragraph of prose (line wraps removed) or one
speech of a play (line breaks kept, because there they are verse lines).
"""
import gzip
import re
from dataclasses import dataclass

# Where the held-out part of every book begins and how long it is, as shares of the book's length.
# The middle, because the ends are not typical: War and Peace closes with an essay on history.
HELD_OUT_START = 0.45
VALIDATION_SHARE = 0.04
TEST_SHARE = 0.04


@dataclass
class Book:
    title: str
    author: str
    is_play: bool
    blocks: list


def read_text(path):
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rb") as handle:
        return handle.read().decode("utf-8").replace("\r\n", "\n")


def plain_quotes(text):
    """One kind of quotation mark in all books: a small model has no room to learn two."""
    for curly, straight in (("“", '"'), ("”", '"'), ("’", "'"), ("‘", "'")):
        text = text.replace(curly, straight)
    return text


def unwrap(paragraph):
    """Join hard-wrapped lines; a line broken at a hyphen or dash joins without a space."""
    joined = ""
    for line in (line.strip() for line in paragraph.split("\n")):
        glue = "" if not joined or joined.endswith("-") or line.startswith("--") else " "
        joined += glue + line
    return re.sub(r"  +", " ", joined)


def prose_blocks(text):
    blocks = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = unwrap(paragraph)
        if paragraph:
            blocks.append(paragraph)
    return blocks


def read_war_and_peace(path):
    text = plain_quotes(read_text(path)).replace("_", "")
    blocks = []
    for block in prose_blocks(text):
        if block.startswith("*"):
            continue  # a translator's footnote, torn from its sentence by the page layout
        block = re.sub(r"\s*\*(\s?\(\d+\))?", "", block)  # the footnote's mark in the sentence
        blocks.append(block)
    return Book("War and Peace", "Tolstoy", False, blocks)


def read_pride_and_prejudice(path):
    text = read_text(path)
    # The copy at hand has one paragraph of another work planted in it. Every quotation mark of the
    # novel is curly, so a straight one gives the stranger away.
    kept = [p for p in re.split(r"\n\s*\n", text) if '"' not in p]
    text = plain_quotes("\n\n".join(kept)).replace("_", "")
    text = re.sub(r"/\*\s*(?:NIND|RIGHT)?\s*(.*?)\s*\*/", r"\1", text)  # page-layout markup
    text = text.replace("Chapter I.]", "CHAPTER I.")
    return Book("Pride and Prejudice", "Austen", False, prose_blocks(text))


def read_shakespeare(path):
    text = read_text(path)
    blocks = [b.strip() for b in re.split(r"\n\s*\n", text) if b.strip()]
    return Book("the plays", "Shakespeare", True, blocks)


def read_books(war_and_peace, pride_and_prejudice, shakespeare):
    return [
        read_war_and_peace(war_and_peace),
        read_pride_and_prejudice(pride_and_prejudice),
        read_shakespeare(shakespeare),
    ]


def join_blocks(blocks):
    return "\n\n".join(blocks)


def split_book(book):
    """Return (training parts, validation blocks, test blocks); training has a part on each side."""
    lengths = [len(b) + 2 for b in book.blocks]
    total = sum(lengths)
    bounds = [HELD_OUT_START, HELD_OUT_START + VALIDATION_SHARE,
              HELD_OUT_START + VALIDATION_SHARE + TEST_SHARE]
    cuts, seen, at = [], 0, 0
    for index, length in enumerate(lengths):
        while at < len(bounds) and seen >= bounds[at] * total:
            cuts.append(index)
            at += 1
        seen += length
    a, b, c = cuts
    return [book.blocks[:a], book.blocks[c:]], book.blocks[a:b], book.blocks[b:c]
