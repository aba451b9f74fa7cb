"""The Hub's part of a run: a repository that is checked before training, and a card and a push after it."""

import json
import logging

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.hub.card import write_card
from modeling_fftp.hub.push import find_difference, push, refuse_public

from .arguments import FFTPTrainingArguments

logger = logging.getLogger(__name__)


def set_repository(training: FFTPTrainingArguments) -> None:
    """Set `training.hub_model_id` to the full name of the repository to push to; raises where nobody is logged in."""
    user = HfApi(token=training.hub_token).whoami()["name"]
    name = training.repository_name
    training.hub_model_id = name if "/" in name else f"{user}/{name}"
    logger.info("Will push to %s", training.hub_model_id)


def check_repository(model: FFTPForAudioClassification, training: FFTPTrainingArguments) -> None:
    """Find out now, not after hours of training, that the repository holds another model or is public."""
    api, repo_id = HfApi(token=training.hub_token), training.hub_model_id
    config = json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}
    if training.hub_private_repo:
        try:
            refuse_public(api, repo_id)
        except ValueError as error:
            raise SystemExit(f"train: {error} --hub_model_id") from error
    if difference := find_difference(api, repo_id, training.hub_revision or "main", config):
        raise SystemExit(
            f"train: {repo_id} holds another model: {difference}. Choose another --hub_model_id; or train without "
            f"--push_to_hub, then `fftp push {training.output_dir} {repo_id} --overwrite`"
        )


def publish(training: FFTPTrainingArguments) -> None:
    """Write the card, and push where that is wanted."""
    folder, repo_id = training.output_dir, training.hub_model_id
    revision = training.hub_revision or "main"
    write_card(folder, repo_id, training.hub_license, revision)
    if training.push_when_done:
        private = bool(training.hub_private_repo)
        try:
            print(push(folder, repo_id, private=private, revision=revision, token=training.hub_token))
        except (ValueError, OSError, HTTPError) as error:
            options = (" --private" if private else "") + (f" --revision {revision}" if revision != "main" else "")
            raise SystemExit(
                f"train: {error}. {folder} is complete; `fftp push {folder} {repo_id}{options}` pushes it"
            ) from error
