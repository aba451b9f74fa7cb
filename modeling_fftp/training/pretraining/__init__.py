"""Pretraining on sound without labels."""
