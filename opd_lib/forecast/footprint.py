"""What a run needs of memory and disk, by arithmetic alone (bytes), and whether that is there.

Each process holds trained weights and AdamW's two moments in float32, frozen models in the precision of the passes, and
on top of these whichever is larger: what a backward pass needs, or what sampling needs. The two do not coincide, except
where a separate engine keeps its weights and cache throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

from opd_lib.forecast.shapes import FLOAT32, Shape

GIB = 2**30
LOGITS = 18
"""Bytes per token of a chunk and entry of the vocabulary, for each model, at most: nine tensors in float32 for two.

Measured: 29 for the objectives on lists with their diagnostics, 20 without, 32 with a tail bucket, 36 for the full
vocabulary.
"""
CANDIDATE, RANKS = 16, 16
"""Bytes of a candidate: its id and log-probabilities in two models; its places in two lists."""
WHOLE_SHARE = 0.25
"""A frozen model stays whole in each process if it takes no more than this share of the device's memory.

The rest is for the student's weights, gradients and optimiser, the logits, and the sampler's cache. On 80 GB that is a
teacher of up to 10e9 weights in bfloat16.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What decides how much one process holds.

    `frozen`: the models that score beside the student, each with True if it is spread over the processes; `scorers`:
    how many models' logits exist at a time; `remembered`: sets of the student's weights that are kept besides.
    `number`: bytes of a number in the passes. `trained`: it has gradients; `moments`: and an optimiser. `tokens`: of
    the largest micro-batch; `chunk`: how many of them have their logits at the same time (None: all). `k`: candidates
    per token. `writer`: the largest model that samples; `engine`: in an engine of its own, which `sleeps` in between or
    does not; or `compiled`, with a cache that stays. `cache`: bytes of the key-value cache.
    """

    student: Shape
    frozen: tuple[tuple[Shape, bool], ...]
    scorers: int
    remembered: int
    processes: int
    shard: bool
    number: int
    trained: bool
    moments: bool
    tokens: int
    chunk: int | None
    k: int
    recompute: bool
    writer: Shape
    engine: bool
    sleeps: bool
    compiled: bool
    cache: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes in one process's device, by what they are for."""

    weights: float
    optimizer: float
    frozen: float
    gradients: float
    copies: float
    activations: float
    logits: float
    sampler: float
    cache: float
    together: bool

    @property
    def passes(self) -> float:
        """What forward and backward passes need on top of the models."""
        return self.gradients + self.copies + self.activations + self.logits

    @property
    def total(self) -> float:
        """The most that is needed at a time."""
        sampling = self.sampler + self.cache
        peak = self.passes + sampling if self.together else max(self.passes, sampling)
        return self.weights + self.optimizer + self.frozen + peak


def fits_whole(weights: float, device: float | None) -> bool:
    """Whether a frozen model of this size (bytes) is kept whole in every process; None: on a CPU, always.

    The machine's own memory holds the whole model while it is loaded anyway.
    """
    return device is None or weights <= WHOLE_SHARE * device


def activations(model: Shape, tokens: float, number: int, recompute: bool, autocast: bool = False) -> float:
    """Bytes that a forward pass leaves for the backward pass, without the head; attention without an ℓ² matrix.

    A layer keeps, per token: around each of two norms its input in float32, what it made of it, and the result;
    queries, keys, values and the attention's result, with Qwen3's norms of the first two; four tensors of the
    feed-forward width. `recompute` keeps every layer's input and, at a time, the rest of one layer. Under `autocast`
    what passes from layer to layer is in float32.
    """
    stream = FLOAT32 if autocast else number
    results = 5 if autocast else 2  # which casts them anew for each of the five layers that read them
    norms = (2 * (FLOAT32 + stream) + results * number) * model.hidden
    normed = (FLOAT32 + stream) * (model.query_width + model.kv_width) * model.qk_norm
    attention = 2 * number * (model.query_width + model.kv_width)
    layer = norms + normed + attention + 4 * number * model.intermediate
    kept = model.layers * stream * model.hidden + layer if recompute else model.layers * layer
    return tokens * kept


def logits(vocabulary: int, tokens: float, models: int, k: int) -> float:
    """Bytes of logits and candidates: 18·V per token of the student's and the teacher's each (36·V for both)."""
    return (LOGITS * models * vocabulary + (CANDIDATE + RANKS) * k) * tokens


def chunk(size: float, vocabulary: int) -> int:
    """How many tokens' logits, of student and teacher, fit into so many bytes."""
    return max(1, int(size // (2 * LOGITS * vocabulary)))


def copies(model: Shape, number: int, shard: bool) -> float:
    """Bytes of weights in the precision of the passes.

    Whole weights: one lower-precision copy of all. Spread weights: embedding, head and two layers at a time, gathered,
    and the float32 gradients of the larger of these on their way to the sum.
    """
    if not shard:
        return 0.0 if number == FLOAT32 else float(number * model.parameters)
    root = model.parameters - model.layers * model.layer_parameters
    layer = model.layer_parameters
    return float(number * (root + 2 * layer) + FLOAT32 * max(root, layer))


def memory(setting: Setting) -> Memory:
    """What one process holds."""
    s, share = setting, setting.processes if setting.shard else 1
    own = FLOAT32 * s.student.parameters / share
    own_copy = s.engine or s.shard or (s.compiled and s.number != FLOAT32)  # else whole weights serve as they are
    chunk = min(s.tokens, s.chunk or s.tokens)
    autocast = s.number != FLOAT32 and not s.shard
    return Memory(
        weights=own * (1 + s.remembered),
        optimizer=2 * own if s.moments else 0.0,
        frozen=sum(s.number * model.parameters / (s.processes if spread else 1) for model, spread in s.frozen),
        gradients=own if s.trained else 0.0,
        copies=copies(s.student, s.number, s.shard),
        activations=activations(s.student, s.tokens, s.number, s.recompute, autocast) if s.trained else 0.0,
        logits=logits(s.student.vocabulary, chunk, s.scorers, s.k),
        sampler=float(s.number * s.writer.parameters) if own_copy else 0.0,
        cache=s.cache,
        together=s.compiled or (s.engine and not s.sleeps),
    )


def host_memory(setting: Setting) -> float:
    """Bytes of the machine's own memory while the models are loaded, before they go to the accelerators.

    Every process reads them whole, the student in float32, frozen ones as they compute; a sleeping engine's weights
    are kept here too.
    """
    s = setting
    frozen = sum(s.number * model.parameters for model, _ in s.frozen)
    return s.processes * (FLOAT32 * s.student.parameters + frozen + s.number * s.writer.parameters * s.engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Bytes a run writes: `checkpoints` while it goes on, `export` when it is finished."""

    checkpoints: float
    export: float

    @property
    def peak(self) -> float:
        """The most at a time: the export is written before the checkpoints go."""
        return self.checkpoints + self.export


def disk(model: Shape, kept: int) -> Disk:
    """A checkpoint holds weights and two moments in float32; `kept` of them stay while the next one is written."""
    return Disk(checkpoints=(kept + 1) * 3.0 * FLOAT32 * model.parameters, export=float(FLOAT32 * model.parameters))


REMEDIES = {
    "weights": "machine.shard: true with more machine.processes",
    "optimizer": "machine.shard: true with more machine.processes",
    "frozen": "machine.shard: true, machine.precision: bfloat16, or a smaller teacher",
    "gradients": "machine.shard: true with more machine.processes",
    "copies": "machine.shard: true with more machine.processes",
    "activations": "a lower train.micro_tokens or source.max_new_tokens",
    "logits": "a lower machine.logits_gib",
    "sampler": "machine.sampler: transformers, or a smaller student",
    "cache": "a lower machine.sampler_cache_gib",
}


def require(needed: Memory, free: float, device: str) -> None:
    """Raise ValueError if a device has less memory free (bytes) than is needed, with the parts and what would help."""
    if needed.total <= free:
        return
    sizes = {name: getattr(needed, name) for name in REMEDIES}
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in sizes.items() if size >= 0.05 * GIB)
    sampling = needed.sampler + needed.cache > needed.passes and not needed.together
    idle = ("gradients", "copies", "activations", "logits") if sampling else ("sampler", "cache")
    counted = {name: size for name, size in sizes.items() if needed.together or name not in idle}
    largest = max(counted, key=lambda name: counted[name])
    other = "machine.device: cuda, " if device == "cpu" else ""
    raise ValueError(
        f"machine: this run needs about {needed.total / GIB:.1f} GiB of {device} memory in each process, "
        f"{free / GIB:.1f} GiB are free (GiB: {parts}; passes and sampling do not coincide). "
        f"The largest part is {largest}; what helps: {other}{REMEDIES[largest]}"
    )
