"""How a history is written for the model: prefix, items with a separator between them, suffix, then the target.

`sid` is the bare sequence of item tokens after a begin token: nothing stands between the history and the target, so
one pass over a user's sequence predicts every item of it. `instruct` puts a sentence around the history for language
models; only a short suffix follows the history.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from peso.errors import ConfigError
from peso.semantic_ids.catalogue import code_token
from peso.types import TemplateName

INSTRUCT_PREFIX = "Items that a user chose , oldest first :"
INSTRUCT_SEPARATOR = " ,"
INSTRUCT_SUFFIX = " Next:"


@dataclass(frozen=True)
class Template:
    """Token ids around the items.

    Attributes:
        prefix: before the first item (with the begin token, where the tokenizer has one).
        separator: between two items of the history.
        suffix: between the history and the target's codes.
    """

    prefix: tuple[int, ...]
    separator: tuple[int, ...]
    suffix: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks that something stands between the history and a target that does not follow it directly."""
        assert self.is_flat or self.suffix, "a template with a separator needs a suffix"

    @property
    def is_flat(self) -> bool:
        """Whether a target's tokens follow its history directly, as the next item of the same sequence would."""
        return not self.separator and not self.suffix


def template_words() -> list[str]:
    """Every word that a template uses, for building the embedded backbone's tokenizer."""
    return f"{INSTRUCT_PREFIX} {INSTRUCT_SEPARATOR} {INSTRUCT_SUFFIX}".split()


def build_template(name: TemplateName, tokenizer: PreTrainedTokenizerBase) -> Template:
    """The template's token ids under a tokenizer.

    Args:
        name: "sid" or "instruct".
        tokenizer: holds the semantic-ID tokens; they split text, and the pieces around them are read off a whole
            prompt, because some tokenizers write a piece differently where no text stands in front of it.

    Raises:
        ConfigError: the tokenizer has neither a begin nor an end token, so the first code had nothing to follow.
    """
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if begin is None:
        raise ConfigError(
            "backbone.source: the tokenizer has neither a begin nor an end token, and a sequence must start with one; "
            "set bos_token or eos_token in its tokenizer_config.json."
        )
    if name == "sid":
        return Template((int(begin),), (), ())
    code = code_token(0, 0)
    code_id = tokenizer.convert_tokens_to_ids(code)
    text = f"{INSTRUCT_PREFIX}{code}{INSTRUCT_SEPARATOR}{code}{INSTRUCT_SUFFIX}"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    first, second = (place for place, token in enumerate(tokens) if token == code_id)
    return Template((int(begin), *tokens[:first]), tuple(tokens[first + 1 : second]), tuple(tokens[second + 1 :]))
