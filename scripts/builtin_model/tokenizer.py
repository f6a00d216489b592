"""Builds the CLIP tokenizer: bytes plus merges for the words of the captions."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from scripts.builtin_model.scenes import Mix, choose_scene, describe

CAPTION_TOKENS = 32
BEGIN = "<|startoftext|>"
END = "<|endoftext|>"
MERGES = 640

#: Words that prompts and negative prompts use besides those of the captions.
OTHER_WORDS = (
    "the two three with without no not and or of in on at one some shape shapes colour color "
    "colored coloured dark light bright simple flat plain solid beautiful nice big tiny cute "
    "photo photograph painting illustration blurry blur low quality worst noise text watermark "
    "dog cat house tree car person man woman flower sun sky sea night abstract geometric style "
    "logo symbol icon sign art poster realistic cartoon"
)


def build_tokenizer() -> CLIPTokenizer:
    """Learn merges from generated captions; every byte has a token, so no word is unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    learner.train_from_iterator(_corpus(), trainer)
    merges = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    tokens += [left + right for left, right in merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    for special in (BEGIN, END):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CAPTION_TOKENS)


def save_tokenizer(tokenizer: CLIPTokenizer, directory: Path) -> None:
    """Write tokenizer.json, and the vocab.json and merges.txt that other readers expect."""
    tokenizer.save_pretrained(directory)
    model = json.loads((directory / "tokenizer.json").read_text())["model"]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = [" ".join(pair) for pair in model["merges"]]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))


def _corpus() -> list[str]:
    """Return every word of the captions once, the words of the model's subject twice."""
    rng = np.random.default_rng(1)
    mix = Mix(pairs=0.2, positioned=0.5, sized=0.5, omitted=0.1, synonyms=0.5)
    captions = " ".join(describe(choose_scene(rng, mix), rng, mix) for _ in range(4000))
    words = sorted(set(captions.replace(",", " ").split()))
    return words * 2 + sorted(set(OTHER_WORDS.split()))
