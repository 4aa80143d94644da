"""peso keeps an LLM-based generative recommender up to date as its users change."""

from importlib.metadata import version

__version__ = version("peso-rec")
