"""What `python -m iclrtut` does; no chapter needs it."""
