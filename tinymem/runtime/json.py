"""Types of JSON values, for data that really is arbitrary JSON; whatever has known keys is a dataclass, a TypedDict or a pydantic model."""

from __future__ import annotations

Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]
JsonObject = dict[str, Json]
