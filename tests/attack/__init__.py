"""Attacks: models, files and words of others that try to do more than they may; docs/security.md lists them."""
