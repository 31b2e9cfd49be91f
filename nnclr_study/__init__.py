"""Hyperparameter studies of NNCLR (arXiv 2104.14548) on Ray."""

__version__ = "0.1.0"
