"""YAML as people write it."""

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Plain values alone; 1e-5 and 1.5e3 are numbers, which YAML 1.1 takes for words."""


_POWER_OF_TEN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _POWER_OF_TEN, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """The value that a text stands for; `yaml.YAMLError` for one that is no YAML."""
    return yaml.load(text, _Loader)
