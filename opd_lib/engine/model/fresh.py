"""Models made new: randomly initialised `Qwen3ForCausalLM` with the tokenizer of their task, determined by the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opd_lib import tasks
from opd_lib.engine.model import models, tensors
from opd_lib.params.schema import NewTextModel
from opd_lib.tasks import math_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from opd_lib.params.schema import NewModel, Task

PAD, BOS, EOS, USER, ASSISTANT = "<pad>", "<bos>", "<eos>", "<user>", "<assistant>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}<user>{{ message.content }}<assistant>{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}"
)
READ = 4096  # rows of a training set that its tokenizer is trained on


def make(shape: NewModel, task: Task, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A new model of this shape with its tokenizer: the tiny world's, or one trained on the task's questions.

    Raises ValueError for weights that are not finite.
    """
    if isinstance(shape, NewTextModel):
        assert task.name == "math"  # params refuses text models of the tiny world
        texts = [question.text for question in math_sets.load(task.content, task.data)[:READ]]
        tokenizer = text_tokenizer(texts, shape.vocabulary)
    else:
        world = tasks.load(task.name).world
        assert world is not None  # params refuses models without a vocabulary for real text
        tokenizer = models.world_tokenizer(world)
    model = models.new_model(shape, seed, tokenizer)
    tensors.require_finite(model.state_dict().items(), "student: its new weights (student.initializer_range)")
    return model, tokenizer


def text_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on these texts, with a chat template; the same texts give the same tokenizer.

    Every text can be written with it. It has fewer than `vocabulary` tokens if the texts do not give as many.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
