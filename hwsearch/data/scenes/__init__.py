"""Scenes with exact object masks, composed from photographs that two packages ship."""
