"""Trains the built-in base: next-token prediction on docstrings, in rows that make a small model learn to copy.

Copying is what a fine-tune asks of it later (a name in the request is a name in the command) and what a minute of plain
text does not teach. So most rows repeat words or are chat turns whose answer is words of the question, and of these
only the part that can be known from what stands before it is learned.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, cycle, islice, zip_longest
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from pharos.model.tiny import Recipe
from pharos.model.tiny_tokenizer import TEXT_END_ID, TURN_END, TURN_END_ID, TURN_START, docstrings, write_tokenizer

NOT_LEARNED = -100
THREAD_TRIALS = 5
"""Steps that are timed for each number of threads."""
Row = tuple[list[int], list[int]]  # tokens, labels: the same tokens, or NOT_LEARNED
Word = list[int]  # the tokens of one word and the space before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The text as tokens: end to end, and as words in their order and each once."""

    tokens: list[int]
    words: list[Word]
    vocabulary: list[Word]


def write_base(folder: Path, config: dict, recipe: Recipe, progress: Callable[[int, int], None] | None) -> None:
    """Train a base of this `config` by this recipe and write it, with its tokenizer, into `folder`."""
    write_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(LlamaConfig(**config))
    pretrain(model, training_rows(tokenizer, recipe), recipe, progress)
    model.config.save_pretrained(folder)
    GenerationConfig(eos_token_id=TURN_END_ID, pad_token_id=TEXT_END_ID).save_pretrained(folder)
    weights = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}  # it is tied
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def on_faster_threads(steps: range) -> Iterator[int]:
    """Yield the steps of a loop, and run them on one of torch's threads or on one a core, whichever proves faster.

    On idle cores threads help even so small a model; beside other work they wait for each other and cost it threefold.
    They are tried in turns, and the median step counts: a first one pays for what is done once.
    """
    before = torch.get_num_threads()
    spent_s: dict[int, list[float]] = {threads: [] for threads in (1, os.cpu_count() or 1)}
    trials = [*spent_s] * THREAD_TRIALS
    try:
        for step, threads in zip_longest(steps, trials[: len(steps)]):
            torch.set_num_threads(threads or min(spent_s, key=lambda tried: median(spent_s[tried])))
            started = time.monotonic()
            yield step
            if threads is not None:
                spent_s[threads].append(time.monotonic() - started)
    finally:
        torch.set_num_threads(before)


def pretrain(
    model: LlamaForCausalLM,
    rows: Iterator[Row],
    recipe: Recipe,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Muon for the matrices (Jordan et al., 2024: half the steps of AdamW here), AdamW for embeddings and norms.

    The rates rise over the warmup, then fall linearly to zero.
    """
    matrices = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    others = [model.model.embed_tokens.weight, *(p for p in model.parameters() if p.ndim == 1)]
    optimizers = [
        torch.optim.Muon(matrices, lr=recipe.matrix_learning_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate_at) for optimizer in optimizers]
    model.train()
    for step in on_faster_threads(range(recipe.num_steps)):
        tokens, labels = zip(*islice(rows, recipe.rows), strict=True)
        hidden_BTD = model.model(input_ids=torch.tensor(tokens), use_cache=False).last_hidden_state[:, :-1]
        labels_BT = torch.tensor(labels)[:, 1:]
        learned_BT = labels_BT != NOT_LEARNED
        functional.cross_entropy(model.lm_head(hidden_BTD[learned_BT]), labels_BT[learned_BT]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepped in (*optimizers, *schedules):
            stepped.step()
        model.zero_grad()
        if progress is not None:
            progress(step + 1, recipe.num_steps)
    model.eval()


def training_rows(tokenizer: Tokenizer, recipe: Recipe) -> Iterator[Row]:
    """Rows of `row_tokens` tokens without end, the same ones for the same seed."""
    generator = random.Random(recipe.seed)
    corpus = read_corpus(tokenizer)
    while True:
        kind = generator.random()
        if kind < recipe.chat_share:
            yield _chat_row(generator, tokenizer, corpus, recipe.row_tokens)
        elif kind < recipe.chat_share + recipe.repeat_share:
            yield _repeating_row(generator, corpus, recipe.row_tokens)
        else:
            start = generator.randrange(len(corpus.tokens) - recipe.row_tokens)
            tokens = corpus.tokens[start : start + recipe.row_tokens]
            yield tokens, tokens


def read_corpus(tokenizer: Tokenizer) -> Corpus:
    texts = docstrings()
    tokens = [token for text in tokenizer.encode_batch_fast(list(texts)) for token in [*text.ids, TEXT_END_ID]]
    distinct = list(dict.fromkeys(word for text in texts for word in text.split() if len(word) < 16))
    vocabulary = [encoded.ids for encoded in tokenizer.encode_batch_fast([f" {word}" for word in distinct])]
    tokens_of = dict(zip(distinct, vocabulary, strict=True))
    words = [tokens_of[word] for text in texts for word in text.split() if word in tokens_of]
    return Corpus(tokens=tokens, words=words, vocabulary=vocabulary)


def _repeating_row(generator: random.Random, corpus: Corpus, num_tokens: int) -> Row:
    """Words in no order, over and over: nothing but copying tells what comes next."""
    period = generator.randint(4, num_tokens // 2)
    passage = list(chain(*(generator.choice(corpus.vocabulary) for _ in range(period))))[:period]
    tokens = list(islice(cycle(passage), num_tokens))
    return tokens, [NOT_LEARNED] * period + tokens[period:]


def _chat_row(generator: random.Random, tokenizer: Tokenizer, corpus: Corpus, num_tokens: int) -> Row:
    """Turns of which the answer is the question again, or one to three runs of its words."""
    ask = tokenizer.encode(f"{TURN_START}user\n").ids
    answer = tokenizer.encode(f"{TURN_END}\n{TURN_START}assistant\n").ids
    end = tokenizer.encode(f"{TURN_END}\n").ids
    tokens: list[int] = []
    labels: list[int] = []
    while len(tokens) < num_tokens:
        words = _question(generator, corpus)
        said = words if generator.random() < 0.3 else _runs_of(generator, words)
        question, reply = [*ask, *chain(*words), *answer], [*chain(*said), *end]
        tokens += question + reply
        labels += [NOT_LEARNED] * len(question) + reply
    return tokens[:num_tokens], labels[:num_tokens]


def _question(generator: random.Random, corpus: Corpus) -> list[Word]:
    """Four to fourteen words: of the text in their order, or common and rare ones in none."""
    num_words = generator.randint(4, 14)
    if generator.random() < 0.5:
        start = generator.randrange(len(corpus.words) - num_words)
        return corpus.words[start : start + num_words]
    return [generator.choice(generator.choice((corpus.words, corpus.vocabulary))) for _ in range(num_words)]


def _runs_of(generator: random.Random, words: list[Word]) -> list[Word]:
    starts = [generator.randrange(len(words)) for _ in range(generator.randint(1, 3))]
    return [word for start in starts for word in words[start : start + generator.randint(1, 4)]]
