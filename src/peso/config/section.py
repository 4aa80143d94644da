"""What every table of a configuration has in common."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    UNNAMED: ClassVar[tuple[str, ...]] = ()
    """Options that are written only where they differ from their default: runs and bases are named by what is written,
    and were before there was such a choice."""

    @model_serializer(mode="wrap")
    def _without_unnamed(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        usual = {name: type(self).model_fields[name].default for name in self.UNNAMED}
        return {name: value for name, value in written.items() if name not in usual or value != usual[name]}
