"""Writes the bundled model's test text: the 4 % of each book that training never saw.

    python held_out.py --text FOLDER --out test.txt
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundled-model"))

from books import join_blocks, read_books, split_book  # noqa: E402

TEST = 2

parser = argparse.ArgumentParser()
parser.add_argument("--text", type=Path, required=True, help="folder of the three books")
parser.add_argument("--out", type=Path, required=True)
args = parser.parse_args()

books = read_books(args.text / "war-and-peace.txt.gz", args.text / "pride_prejudice_mod.txt",
                   args.text / "tiny_shakespeare.txt")
args.out.write_text(join_blocks([join_blocks(split_book(book)[TEST]) for book in books]), encoding="utf-8")
