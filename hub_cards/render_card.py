"""`python -m hub_cards.render_card` is the old name of `fftp card`."""

import sys

from modeling_fftp.cli import app

if __name__ == "__main__":
    app(["card", *sys.argv[1:]], prog_name="fftp")
