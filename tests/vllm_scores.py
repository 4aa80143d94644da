"""Log-probabilities of the token behind each prompt, by vLLM; run by the Python that has it, apart from ours."""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def main() -> None:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

    task, result = (Path(argument) for argument in sys.argv[1:])
    wanted: dict[str, Any] = json.loads(task.read_text())
    engine = LLM(
        model=wanted["backbone"], dtype="float32", enforce_eager=True, max_model_len=256, max_logprobs=-1,
        enable_lora=True, max_lora_rank=wanted["rank"],
    )  # fmt: skip
    found = engine.generate(
        [{"prompt_token_ids": tokens} for tokens in wanted["prompts"]],
        SamplingParams(temperature=0, max_tokens=1, logprobs=-1, detokenize=False, ignore_eos=True),
        lora_request=LoRARequest("version", 1, wanted["adapter"]),
    )
    scores = [{token: entry.logprob for token, entry in one.outputs[0].logprobs[0].items()} for one in found]
    result.write_text(json.dumps(scores))


if __name__ == "__main__":
    main()
