"""Trials on a cluster: the only room that knows Ray."""
