"""NNCLR itself: torch and torchvision, no Ray, no printing, no files but checkpoints."""
