"""What goes to the Hub: recipes, the template of cards, the metric, the Space. This module says where each lies."""

from pathlib import Path

FOLDER = Path(__file__).parent
CARD_TEMPLATE = FOLDER / "model_card_template.md"
ENCODER_CARD_TEMPLATE = FOLDER / "encoder_card_template.md"
METRIC = FOLDER / "metrics" / "audio_tagging"
SPACE = FOLDER / "space" / "app.py"


def list_recipes() -> dict[str, Path]:
    """Recipes by the name of their folder."""
    return {path.parent.name: path for path in sorted(FOLDER.glob("*/recipe.json"))}
