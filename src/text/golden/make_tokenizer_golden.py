"""Writes tokenizer.json: what transformers' CLIPTokenizer makes of prompts. Made with transformers 5.18 and,
for learned tokens, diffusers 0.40.0.dev0 (58eb52c0): python make_tokenizer_golden.py

The vocabulary is built as CLIP's is (256 bytes, 256 bytes at the end of a word, one token per merge, start, end), only
with few merges. `ids` are kept up to the first end token's place and what follows is the padding. Strange characters are
confined to those that every Unicode version of the last years agrees on.
"""

import json
import tempfile
from pathlib import Path

from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

MERGES = "t h,th e</w>,r e,re d</w>,h o,u s,ho us,hous e</w>,i n</w>,a t</w>,! !,d o,do n,Ï ĥ,' s</w>,! !</w>,s u,n s,su ns,e t</w>,suns et</w>"
MERGES = [tuple(merge.split(" ")) for merge in MERGES.split(",")]
PROMPTS = [
    "",
    "  \t\n ",
    "A  Red\u00a0HOUSE\nin the\u3000sunset!",
    "the house's door, don't DON'T we'll I'M 'tis 'S",
    "wow!! cool!!! ,,..",
    "1234567890 42nd ½ ² Ⅷ ١٢٣",
    "cafe\u0301 café Å Ω ﬁ 가 \u1100\u1161",
    "ΟΔΟΣ Σ ΑΣ. Σίσυφος",
    "İstanbul ß ẞ ǅ",
    "日本語のテキスト русский עברית",
    "👍🏽 👩‍👩‍👧‍👦 🇩🇪! 🏳️‍🌈",
    "x\ufeffy\ufeff! \u0085z\u200b \ufeff",
    "a <|endoftext|> b<|startoftext|>c",
    "A <|ENDOFTEXT|> b",
    "a_b-c <|x|> {y} \\ `z`",
    "\x00\x1c\x1f\x7f",
    "the red house in the sunset " * 20,
    "x" * 100,
    "<|endoftext|>" * 100,
    "!" * 100,
]
PLAIN, END = "<|startoftext|>", "<|endoftext|>"


def flags(content):
    return {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


# As in the folders of transformers 5, of 4 (SD 1.5: objects, a string for padding) and of SDXL's second tokenizer.
CONFIGS = {
    "strings": {"bos_token": PLAIN, "eos_token": END, "unk_token": END, "pad_token": END, "model_max_length": 77},
    "objects": {"bos_token": flags(PLAIN), "eos_token": flags(END), "unk_token": flags(END), "pad_token": END, "model_max_length": 77},
    "exclamation": {"bos_token": flags(PLAIN), "eos_token": flags(END), "unk_token": flags(END), "pad_token": "!", "model_max_length": 77},
    "decoder": {
        "added_tokens_decoder": {
            "0": {**flags("!"), "normalized": False, "special": True},
            str(512 + len(MERGES)): {**flags(PLAIN), "special": True},
            str(513 + len(MERGES)): {**flags(END), "special": True},
        },
        "bos_token": PLAIN, "eos_token": END, "unk_token": END, "pad_token": "!", "model_max_length": 77,
    },
}  # fmt: skip

bytes_in_order = "".join(bytes_to_unicode().values())
tokens = [*bytes_in_order, *(c + "</w>" for c in bytes_in_order), *("".join(merge) for merge in MERGES), PLAIN, END]
vocab = {token: i for i, token in enumerate(tokens)}
for config in CONFIGS.values():
    for entry in config.get("added_tokens_decoder", {}).values():
        entry.pop("__type")
        assert vocab[entry["content"]] in map(int, config["added_tokens_decoder"])

folder = Path(tempfile.mkdtemp())
cases = {}
for name, config in CONFIGS.items():
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in MERGES) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "CLIPTokenizer"}))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    cases[name] = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True).input_ids
        while len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.pad_token_id:
            ids.pop()
        cases[name].append(ids)
# Learned tokens as transformers has saved them, and prompts as diffusers' maybe_convert_prompt writes them out first.
FIRST = 514 + len(MERGES)
LEARNED = {"<red-house>": FIRST, "<red-house>_1": FIRST + 1, "<red-house>_2": FIRST + 2, "<sun>": FIRST + 3, "<Mark>": FIRST + 4}
LEARNED_PROMPTS = [
    "the <red-house> in the sunset",
    "the <RED-HOUSE>, <Sun> <mark>",
    "<red-house><red-house>_1 <sun>s, in<sun>in <red-house>_2",
    "<red-house>_ <red-house>_12 <red-house",
    "a <Mark> $& " + "<red-house> " * 40,
]
LEARNED_FILES = {
    "added_tokens.json": {"added_tokens": LEARNED},
    "added_tokens.json, one of them special": {"added_tokens": LEARNED, "additional_special_tokens": ["<Mark>"]},
    "added_tokens_decoder": {
        "added_tokens_decoder": {
            str(i): {**flags(token), "normalized": token != "<Mark>", "special": token == "<Mark>"} for token, i in LEARNED.items()
        }
    },
}
for files in LEARNED_FILES.values():
    for entry in files.get("added_tokens_decoder", {}).values():
        entry.pop("__type")
learned = {}
for name, files in LEARNED_FILES.items():
    config = {**CONFIGS["strings"], **files, "tokenizer_class": "CLIPTokenizer"}
    added = config.pop("added_tokens", None)
    (folder / "added_tokens.json").unlink(missing_ok=True)
    if added is not None:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert LEARNED.items() <= tokenizer.get_vocab().items()
    written = TextualInversionLoaderMixin().maybe_convert_prompt(LEARNED_PROMPTS, tokenizer)
    learned[name] = [tokenizer(prompt, max_length=77, truncation=True).input_ids for prompt in written]
lines = [
    f'"learned": {json.dumps({"prompts": LEARNED_PROMPTS, "files": LEARNED_FILES, "ids": learned})}',
    f'"bytes": {json.dumps(bytes_in_order, ensure_ascii=False)}',
    f'"merges": {json.dumps(MERGES, ensure_ascii=False)}',
    f'"prompts": {json.dumps(PROMPTS)}',
    f'"configs": {json.dumps(CONFIGS)}',
    f'"ids": {json.dumps(cases)}',
]
Path(__file__).with_name("tokenizer.json").write_text("{" + ",\n".join(lines) + "}\n")
