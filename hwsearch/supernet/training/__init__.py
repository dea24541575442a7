"""Sandwich-rule training of a supernet."""
