"""The harness's side: a model of it that answers as one branch. Needs the extra ``lm-eval``.

``python -m saepd.interchange.harness --model saepd --model_args steering=FOLDER,branch=NAME ...``
is the harness's own command line with this model among its others: version 0.4.13 has no way for
packages to add models by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.models  # noqa: F401 # pyright: ignore[reportMissingImports] - the harness's own
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]

from saepd.branches.writing.config import SamplingConfig
from saepd.common.errors import InputError, first_line
from saepd.common.messages import nearest, shortened
from saepd.interchange.harness.shared import BASE, Question, SharedRun
from saepd.interchange.loading import load_steering

_DEFAULT_TOKENS = 256


@register_model("saepd")
class SteeredLM(TemplateLM):
    """One branch of a shared run, as a model of the harness.

    Args:
        steering: Folder of directions; the packaged model unsteered if not given.
        branch: ``base``, a perspective, or ``merged``.
        shared: A run that other branches use too; a new one of the folder if not given.
        device: Where the model goes; the best one there is if not given.
        batch_size: Not used: batches are as large as memory allows.
        max_batch_size: Not used, like the other.

    Raises:
        InputError: a folder that cannot be loaded, or no such branch.
    """

    def __init__(
        self,
        steering: str | Path | None = None,
        branch: str = BASE,
        shared: SharedRun | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.shared = shared or SharedRun(*load_steering(steering, device=device))
        if branch not in self.shared.names:
            raise InputError(
                f"there is no branch {shortened(branch)}: use one of {', '.join(self.shared.names)}"
            )
        self.branch = branch
        self.tokenizer: Any = self.shared.model.tokenizer
        self._device = next(self.shared.model.original_model.parameters()).device

    @property
    def eot_token_id(self) -> int:
        """The token that ends texts, which is also put in front of an empty context."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token in front of an empty context, as the harness's own models choose it."""
        opening = self.tokenizer.bos_token_id
        return self.eot_token_id if opening is None else opening

    @property
    def tokenizer_name(self) -> str:
        """Name under which requests are cached."""
        return str(self.shared.model.cfg.model_name).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids of a text, with what the tokenizer puts in front unless told otherwise."""
        opening = self.tokenizer.decode([self.prefix_token_id])
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(opening)
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the model's own template writes it."""
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """Scores of options, all of a question's together.

        Raises:
            InputError: a task that asks for the likelihood of single texts, or an input that is
                longer than the model's context.
        """
        encoded = [self._encoded(*request.args) for request in requests]
        documents: dict[tuple[Any, Any, bool], list[int]] = {}
        for i, request in enumerate(requests):
            # Mutual information asks for options without their question too, as another question.
            key = (request.task_name, request.doc_id, not request.args[0])
            documents.setdefault(key, []).append(i)
        for (task, *_), indices in documents.items():
            if len(indices) < 2:
                raise InputError(
                    f"the task {task!r} asks how likely single texts are: give a task with several "
                    "options a question, or one that generates"
                )
        questions: list[Question] = [
            tuple(encoded[i] for i in indices) for indices in documents.values()
        ]
        score_of_request: dict[int, float] = {}
        scores = self.shared.scores(questions, self.branch)
        for indices, row in zip(documents.values(), scores, strict=True):
            score_of_request |= dict(zip(indices, row.tolist(), strict=True))
        # Whether an option is what would be written is asked of single texts only.
        return [(score_of_request[i], False) for i in range(len(requests))]

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
        raise InputError("saepd scores the options of a question together: call loglikelihood")

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Refused: what steering does to whole texts is no answer to anything.

        Raises:
            InputError: always.
        """
        raise InputError("perplexity of whole texts is not computed under steering: use `hf`")

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to the first of the stop texts.

        Raises:
            InputError: settings of generation that saepd does not know.
        """
        asked = [(request.args[0], _sampling(dict(request.args[1]))) for request in requests]
        text_of_request: dict[int, str] = {}
        for sampling in dict.fromkeys(sampling for _, sampling in asked):
            indices = [i for i, (_, wanted) in enumerate(asked) if wanted == sampling]
            texts = self.shared.texts([asked[i][0] for i in indices], sampling, self.branch)
            text_of_request |= dict(zip(indices, texts, strict=True))
        return [text_of_request[i] for i in range(len(requests))]

    def _encoded(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if context:
            before, behind = self._encode_pair(context, continuation)
        else:
            behind = self.tok_encode(continuation, add_special_tokens=False)
            before = [self.prefix_token_id]
        return tuple(before), tuple(behind)


def _sampling(given: dict[str, Any]) -> SamplingConfig:
    """Settings of the harness as saepd's."""
    until = given.pop("until", ())
    stop = (until,) if isinstance(until, str) else tuple(until)
    samples = bool(given.pop("do_sample", False))
    temperature = float(given.pop("temperature", 0.0) or 0.0)
    tokens = int(given.pop("max_gen_toks", given.pop("max_new_tokens", _DEFAULT_TOKENS)))
    if given:
        raise InputError(
            f"the task sets {', '.join(given)}, which saepd does not know: use until, do_sample, "
            "temperature and max_gen_toks"
        )
    return SamplingConfig(
        max_new_tokens=tokens,
        temperature=(temperature or 1.0) if samples else 0.0,
        stop=tuple(text for text in stop if text),
    )


def run_harness(
    shared: SharedRun,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
) -> dict[str, dict[str, Any]]:
    """The harness's own results for the base, every perspective and the merge.

    Args:
        shared: What all of them run in.
        tasks: Names of tasks.
        include_path: Folder of further task files.
        limit: Most questions of each task.
        num_fewshot: Examples in front of each question; the task's own number if None.

    Raises:
        InputError: tasks that the harness does not know or cannot load.
    """
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    unknown = [name for name in tasks if name not in manager.all_tasks]
    if unknown:
        raise InputError(
            f"the harness knows no task {shortened(unknown[0])}: "
            f"{nearest(unknown[0], manager.all_tasks, 5)}"
        )
    results = {}
    for name in shared.names:
        try:
            results[name] = simple_evaluate(
                SteeredLM(branch=name, shared=shared),
                tasks=list(tasks),
                task_manager=manager,
                limit=limit,
                num_fewshot=num_fewshot,
                bootstrap_iters=0,
            )
        except (OSError, ConnectionError) as error:
            raise InputError(f"cannot load the task's data: {first_line(error)}") from error
    return results
