"""How a part is named after its class."""

import re


def snake_case(name: str) -> str:
    """DropEqualGroups as a recipe writes it: drop_equal_groups."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
