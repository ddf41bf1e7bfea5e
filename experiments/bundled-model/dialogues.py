"""Cut the books into conversations.

The user's turn asks for something the book is about to say (a name, a noun, an opening, a line of a
play); the assistant's turn is the book's own text, one to seven sentences of it. A conversation goes
on through the book, so "Go on." really gets the next passage. One call of `conversations` walks a
book part once; with another random seed the cuts and the questions fall elsewhere.
"""
import re
from collections import Counter

import persona

MAX_REPLY_WORDS = 150
TITLES = "Mr|Mrs|Miss|Lady|Lord|Sir|Prince|Princess|Count|Countess|Captain|Colonel|General|King|Queen|Duke"
NAME = re.compile(rf"\b(?:(?:{TITLES})\.? )?[A-Z][a-z]+(?: [A-Z][a-z]+)?")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Dr|St|Messrs|[A-Z])\.$")
SENTENCE_END = re.compile(r"""[.!?]+["')]*(?=\s+["'(]*[A-Z])""")
SPEECH = re.compile(r'"([^"]+)"?')

ABOUT = ["Tell me about {}.", "Tell me about {}.", "Tell me about {}", "Who is {}?", "Tell me of {}.",
         "What do you know about {}?", "Tell me a story about {}.", "Speak to me of {}.",
         "Write about {}.", "Describe {}.", "What about {}?", "What became of {}?", "Who was {}?",
         "tell me about {}", "Can you tell me about {}?", "Write a story about {}."]
ABOUT_THING = [a for a in ABOUT if "Who" not in a] + ["What is {}?", "What can you say of {}?"]
CONTINUE = ["Continue: {}", "Continue: {}", "{}", "Go on from here: {}", "Continue this story: {}",
            "Complete this: {}", "What comes after this? {}"]
MORE = ["Go on.", "Continue.", "What happens next?", "And then?", "Tell me more.", "What happened then?",
        "Please continue.", "And after that?", "Go on", "continue", "What next?", "More, please."]
STYLE = ["Write a passage in the style of {}.", "Write something in the style of {}.",
         "Tell me a story.", "Tell me a story in the manner of {}.", "Tell me something.",
         "Write a paragraph like {}.", "Read to me from {}.", "Give me a page of {}."]
SCENE = ["Write a scene between {} and {}.", "Let {} and {} speak.", "Write a dialogue between {} and {}.",
         "What do {} and {} say to each other?"]
PLAY_STYLE = ["Write a scene in the style of Shakespeare.", "Write a scene from a play.",
              "Give me some Shakespeare.", "Write like Shakespeare."]
SAYS = ["What does {} say?", "Speak as {}.", "Give me a speech of {}.", "What says {}?",
        "Tell me about {}.", "Who is {}?"]
# Words that follow "the" often but make no question anyone would ask.
DULL = set("same other first most last whole one more rest next end side way best only former latter "
           "others very two three second least moment time day part matter sake fact more contrary "
           "people place thing things point manner subject right left words word head hands eyes "
           "face idea means other's great old little young long new something big dark beautiful "
           "following greatest highest higher lower greater common external eldest farther".split())


def sentences(paragraph):
    parts, start = [], 0
    for match in SENTENCE_END.finditer(paragraph):
        if ABBREVIATION.search(paragraph[start:match.end()]):
            continue
        parts.append(paragraph[start:match.end()].strip())
        start = match.end()
    parts.append(paragraph[start:].strip())
    return [p for p in parts if p]


def count_words(text):
    return text.count(" ") + text.count("\n") + 1


class Topics:
    """The names and nouns of a book that are frequent enough to be asked about."""

    def __init__(self, text):
        # A name must occur inside a sentence too, where a capital is not just the sentence's start.
        inside = Counter(m.group(0) for m in re.finditer(rf"(?<=[a-z,] ){NAME.pattern}", text))
        self.names = {n for n, c in inside.items() if c >= 6}
        nouns = Counter(re.findall(r"\bthe ([a-z]{3,})\b(?! room)", text))
        plain = Counter(re.findall(r"\b[a-z]{3,}\b", text))
        self.nouns = {n for n, c in nouns.items()
                      if c >= 12 and c >= 0.2 * plain[n] and n not in DULL}

    def of(self, sentence):
        names = [n for n in NAME.findall(sentence[:120]) if n in self.names]
        nouns = [n for n in re.findall(r"\bthe ([a-z]+)\b", sentence[:120].lower()) if n in self.nouns]
        return names, nouns


def small_talk(rng, intents):
    asks, answers = rng.choice(intents)
    return [("user", rng.choice(asks)), ("assistant", rng.choice(answers))]


def with_frame(rng, turns):
    """Now and then a system message, a greeting before and a farewell after the book's text."""
    framed = list(turns)
    if rng.random() < 0.10:
        framed = small_talk(rng, persona.OPENERS) + framed
    if rng.random() < 0.04:
        framed = framed + small_talk(rng, persona.CLOSERS)
    if rng.random() < 0.12:
        framed = [("system", rng.choice(persona.SYSTEM_MESSAGES))] + framed
    return framed


class ProseReader:
    """Walks the sentences of a book part; `take` gives the next passage, paragraphs kept apart."""

    def __init__(self, blocks):
        self.items = []  # (sentence, whether it opens a paragraph)
        for block in blocks:
            if re.fullmatch(r"(CHAPTER|BOOK|FIRST|SECOND)\b.{0,30}", block):
                continue  # headings are no answer to anything
            for index, sentence in enumerate(sentences(block)):
                self.items.append((sentence, index == 0))
        self.at = 0

    def done(self):
        return self.at >= len(self.items)

    def peek(self, offset=0):
        at = self.at + offset
        return self.items[at] if at < len(self.items) else ("", True)

    def skip_to_paragraph(self):
        while not self.done() and not self.peek()[1]:
            self.at += 1

    def take(self, wanted, least_words=0):
        text, words, taken = "", 0, 0
        while not self.done():
            sentence, opens = self.peek()
            length = count_words(sentence)
            if taken and words + length > MAX_REPLY_WORDS:
                break
            # An open quotation is not a place to stop, unless the passage has grown long.
            if taken >= wanted and words >= least_words and (opens or text.count('"') % 2 == 0 or taken >= wanted + 3):
                break
            text += ("" if not text else "\n\n" if opens else " ") + sentence
            words, taken = words + length, taken + 1
            self.at += 1
        return text


def reply_length(rng):
    return rng.choices([2, 3, 4, 5, 6, 7], [2, 4, 5, 4, 3, 2])[0]


def prose_opening(rng, reader, book, topics):
    """First exchange of a conversation: the question is made from what the book says next."""
    sentence, opens = reader.peek()
    names, nouns = topics.of(sentence)
    spoken = " ".join(SPEECH.findall(sentence))
    kind = rng.random()
    # A passage that begins with narration answers "Tell me about ..." better than a bare remark.
    asks_about = rng.random() < (0.4 if spoken else 0.85)
    if spoken and opens and reader.peek(1)[1] and kind < 0.6:
        reader.at += 1  # a remark in quotation marks, answered by the book's next paragraph
        return [("user", spoken.rstrip(",")), ("assistant", reader.take(rng.choice([1, 2, 3])))]
    least_words = 20
    if (names or nouns) and asks_about:
        least_words = 45
        if nouns and (not names or rng.random() < 0.4):
            question = rng.choice(ABOUT_THING).format("the " + rng.choice(nouns))
        else:
            question = rng.choice(ABOUT).format(rng.choice(names))
    elif kind < 0.8 and count_words(sentence) <= 60:
        reader.at += 1
        question = rng.choice(CONTINUE).format(sentence)
    else:
        question = rng.choice(STYLE).format(rng.choice([book.author, book.title]))
    return [("user", question), ("assistant", reader.take(reply_length(rng), least_words))]


def prose_conversations(rng, book, blocks, topics):
    reader = ProseReader(blocks)
    reader.at = rng.randrange(6)  # so that another pass cuts at other places
    while not reader.done():
        if rng.random() < 0.8:
            reader.skip_to_paragraph()
            if reader.done():
                break
        turns = prose_opening(rng, reader, book, topics)
        while rng.random() < 0.55 and not reader.done():
            if rng.random() < 0.6:
                turns += [("user", rng.choice(MORE)), ("assistant", reader.take(reply_length(rng), 30))]
            else:
                turns += prose_opening(rng, reader, book, topics)
        yield with_frame(rng, [t for t in turns if t[1]])


def split_speech(block):
    speaker, _, lines = block.partition(":\n")
    return (speaker, lines) if lines else ("", block)


def spoken_name(speaker):
    return " ".join(w.capitalize() if w.isupper() and len(w) > 2 else w for w in speaker.split())


def cut_speech(lines):
    """Shorten a long speech at the end of a sentence, so that every reply has an end."""
    if count_words(lines) <= MAX_REPLY_WORDS:
        return lines
    kept = " ".join(re.split(r"( )", lines)[: 2 * MAX_REPLY_WORDS : 2])
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s)", kept)]
    return kept[: ends[-1]] if ends else kept


def play_conversations(rng, blocks):
    at = rng.randrange(3)
    while at + 3 < len(blocks):
        kind = rng.random()
        turns = []
        if kind < 0.5:  # two people talk: the user speaks one part, the assistant the other
            for _ in range(rng.choice([1, 1, 2, 3])):
                if at + 1 >= len(blocks):
                    break
                ask, answer = split_speech(blocks[at])[1], split_speech(blocks[at + 1])[1]
                turns += [("user", cut_speech(ask).replace("\n", " ")), ("assistant", cut_speech(answer))]
                at += 2
        elif kind < 0.8:  # a scene with the speakers' names
            for turn in range(rng.choice([1, 1, 2, 3])):
                speeches, words = [], 0
                for _ in range(rng.choice([2, 3, 4, 5, 6])):
                    if at >= len(blocks) or (speeches and words > MAX_REPLY_WORDS * 2 // 3):
                        break
                    speaker, lines = split_speech(blocks[at])
                    lines = cut_speech(lines)
                    speeches.append(f"{speaker}:\n{lines}" if speaker else lines)
                    words += count_words(lines)
                    at += 1
                if not speeches:
                    break
                people = list(dict.fromkeys(s.partition(":\n")[0] for s in speeches))
                question = rng.choice(PLAY_STYLE if len(people) < 2 or rng.random() < 0.3 else SCENE)
                question = question.format(*(spoken_name(p) for p in people[:2])) if "{}" in question else question
                turns += [("user", rng.choice(MORE) if turn else question),
                          ("assistant", "\n\n".join(speeches))]
        elif kind < 0.92:  # one person's speech
            speaker, lines = split_speech(blocks[at])
            question = rng.choice(SAYS).format(spoken_name(speaker)) if speaker else rng.choice(PLAY_STYLE)
            turns = [("user", question), ("assistant", cut_speech(blocks[at]))]
            at += 1
        else:  # the first line given, the rest of the speech asked for
            first, _, rest = split_speech(blocks[at])[1].partition("\n")
            if rest:
                turns = [("user", rng.choice(CONTINUE).format(first)), ("assistant", cut_speech(rest))]
            at += 1
        if turns:
            yield with_frame(rng, turns)


def conversations(rng, book, blocks, topics):
    if book.is_play:
        yield from play_conversations(rng, blocks)
    else:
        yield from prose_conversations(rng, book, blocks, topics)


def persona_conversations(rng, count):
    """Small talk on its own, so that a bare "Hello" at the start of a context is familiar."""
    for _ in range(count):
        turns = small_talk(rng, persona.OPENERS)
        if rng.random() < 0.3:
            turns += small_talk(rng, persona.OPENERS + persona.CLOSERS)
        if rng.random() < 0.15:
            turns = [("system", rng.choice(persona.SYSTEM_MESSAGES))] + turns
        yield turns
