"""A byte-level BPE tokenizer in CLIP's format, its merges learnt from the grammar's own words."""

import json
import pathlib
import random
import re
from collections import Counter

from . import captions

PATTERN = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-zA-Z]+|[0-9]|[^\sa-zA-Z0-9]+")
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters():
    """CLIP's (GPT-2's) printable stand-in for each byte."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


LETTERS = byte_letters()


def letters(word):
    letters = [LETTERS[b] for b in word.encode()]
    return tuple(letters[:-1]) + (letters[-1] + "</w>",)


def words(text):
    return PATTERN.findall(re.sub(r"\s+", " ", text.lower()).strip())


def merge(pieces, a, b):
    out, i = [], 0
    while i < len(pieces):
        if i + 1 < len(pieces) and pieces[i] == a and pieces[i + 1] == b:
            out.append(a + b)
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return tuple(out)


def learn(seed=0, count=20000):
    """Merge the most frequent pair until every word of the grammar is one token."""
    rng = random.Random(seed)
    counts = Counter(w for _ in range(count) for w in words(captions.sample(rng)[0]))
    pieces = {letters(w): n for w, n in counts.items()}
    vocabulary = list(LETTERS.values())
    vocabulary += [c + "</w>" for c in vocabulary]
    merges = []
    while True:
        pairs = Counter()
        for p, n in pieces.items():
            for pair in zip(p, p[1:]):
                pairs[pair] += n
        if not pairs:
            break
        a, b = max(pairs.items(), key=lambda kv: (kv[1], kv[0]))[0]
        merges.append((a, b))
        vocabulary.append(a + b)
        pieces = {merge(p, a, b): n for p, n in pieces.items()}
    vocabulary += [START, END]
    return Tokenizer({t: i for i, t in enumerate(vocabulary)}, merges)


class Tokenizer:
    LENGTH = 77

    def __init__(self, vocabulary, merges):
        self.vocabulary, self.merges = vocabulary, merges
        self.rank = {tuple(m): i for i, m in enumerate(merges)}
        self.start, self.end = vocabulary[START], vocabulary[END]
        self.cache = {}

    def word(self, word):
        if word not in self.cache:
            pieces = letters(word)
            while len(pieces) > 1:
                best = min(zip(pieces, pieces[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                if best not in self.rank:
                    break
                pieces = merge(pieces, *best)
            self.cache[word] = [self.vocabulary[p] for p in pieces]
        return self.cache[word]

    def __call__(self, text, pad=None):
        """77 tokens. SDXL's first tokenizer pads with the end token, its second with token 0."""
        ids = [i for w in words(text) for i in self.word(w)][:self.LENGTH - 2]
        ids = [self.start] + ids + [self.end]
        return ids + [self.end if pad is None else pad] * (self.LENGTH - len(ids))

    def save(self, folder, pad_token):
        """As transformers would: the padding token, where it is not the end, is a special token too."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        (folder / "vocab.json").write_text(json.dumps(self.vocabulary, ensure_ascii=False) + "\n")
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in self.merges))
        special = lambda content, i: {"id": i, "content": content, "single_word": False, "lstrip": False,
                                      "rstrip": False, "normalized": False, "special": True}
        write("tokenizer.json", {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [special(pad_token, self.vocabulary[pad_token])] * (pad_token != END)
            + [special(START, self.start), special(END, self.end)],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
                {"type": "Lowercase"}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|"
                                                       "[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"},
                 "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
            "post_processor": {"type": "RobertaProcessing", "sep": [END, self.end], "cls": [START, self.start],
                               "trim_offsets": False, "add_prefix_space": False},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": END, "continuing_subword_prefix": "",
                      "end_of_word_suffix": "</w>", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": self.vocabulary, "merges": [list(m) for m in self.merges]}})
        write("tokenizer_config.json", {"backend": "tokenizers", "bos_token": START, "eos_token": END,
                                        "model_max_length": 77, "pad_token": pad_token,
                                        "tokenizer_class": "CLIPTokenizer", "unk_token": END})

    @staticmethod
    def load(folder):
        folder = pathlib.Path(folder)
        merges = (folder / "merges.txt").read_text().splitlines()[1:]
        return Tokenizer(json.loads((folder / "vocab.json").read_text()), [tuple(m.split(" ")) for m in merges if m])
