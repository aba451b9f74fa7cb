"""`python -m modeling_fftp` is the command `fftp`."""

from modeling_fftp.cli import app

app(prog_name="fftp")
