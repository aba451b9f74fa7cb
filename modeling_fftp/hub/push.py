"""Put a trained folder on the Hub: what a user of the model needs, in one commit, and no pickle."""

import glob
import json
import mmap
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import filter_repo_objects

from modeling_fftp import FFTPConfig
from modeling_fftp.pretrained import hash_weights

from .run_files import PICTURES, PUBLISHED

# What a card tells users to load.
SNIPPET = re.compile(
    r'pipeline\([^()]{0,300}model="(?P<model>[^"]+)"(, revision="(?P<revision>[^"]+)")?'
    r"|fftp train --model_name_or_path (?P<start>\S+)"
)
REQUIRED = ("config.json", "preprocessor_config.json", "README.md")
PATTERNS = (
    *REQUIRED, "model*.safetensors", "model.safetensors.index.json", "model*.onnx*", "*_fftp.py", *PUBLISHED, "*.png",
)  # fmt: skip
# An entry of an ONNX file's metadata: its key, and 64 signs of a value, each after its protobuf field and length.
HASH = re.compile(rb"\n\x07weights\x12@([0-9a-f]{64})")
# Of an earlier push, unless this one brings them: code, weights, pickles, and what was measured and drawn of these.
REPLACED = (
    "*_fftp.py", "*.safetensors", "*.safetensors.index.json", "*.onnx*", "*.bin", "*.pt", "*.pth",
    *PUBLISHED, *PICTURES,
)  # fmt: skip
# Fields of a config that say nothing about which model it is.
INCIDENTAL = (
    "auto_map", "custom_pipelines", "dtype", "transformers_version", "use_cache", "_name_or_path",
    # How a model runs, not what it is.
    "time_stride", "time_strides", "stretch_patches", "thresholds", "median_filter_seconds", "scan_implementation",
    # How it was trained.
    "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "initializer_range",
)  # fmt: skip


def files_to_push(folder: Path) -> list[Path]:
    """Files of a trained folder that belong into a repository; of pictures those that its card shows.

    Raises:
        FileNotFoundError: The folder lacks weights, a config or a card.
        ValueError: Weights are there twice, or an ONNX file is of others.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; expected one that a training left")
    found = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    names = list(filter_repo_objects(found, allow_patterns=list(PATTERNS)))
    shown = (folder / "README.md").read_text(encoding="utf-8") if "README.md" in names else ""
    names = [name for name in names if not name.endswith(".png") or name in shown]
    refuse_links(folder, names)
    index = folder / "model.safetensors.index.json"
    weights = ["model.safetensors"]
    if index.exists() and "model.safetensors" in names:
        raise ValueError(
            f"{folder} holds model.safetensors and the shards of {index.name}, of which only one can be meant; "
            "delete the other"
        )
    if index.exists():
        weights = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    missing = [name for name in (*REQUIRED, *weights) if name not in names]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; a training leaves all of them, and "
            "`fftp card FOLDER` a new README.md"
        )
    refuse_stale_onnx(folder, weights)
    return [folder / name for name in names]


def refuse_links(folder: Path, names: Sequence[str]) -> None:
    """Refuse links out of a folder, by which somebody may have named files of whoever pushes it.

    Raises:
        ValueError: There is one, but for those of the Hub's cache.
    """
    # Links of a snapshot lead to the blobs of its repository.
    snapshots = folder.resolve().parent
    home = snapshots.parent if snapshots.name == "snapshots" else folder.resolve()
    for name in names:
        target = (folder / name).resolve()
        if home not in target.parents:
            raise ValueError(f"{folder / name} is a link to {target}: expected a file in the folder, copy it there")


def refuse_stale_onnx(folder: Path, weights: Sequence[str]) -> None:
    """Refuse ONNX files of other weights: by the hash that ours hold, and those of other programs by their age.

    Raises:
        ValueError: There is one.
    """
    changed = max((folder / name).stat().st_mtime for name in weights)
    made_of = {path: find_hash(path) for path in folder.glob("model*.onnx")}
    # Weights may be gigabytes: they are read once, and only for files that say what they are of.
    wanted = hash_weights(folder) if any(made_of.values()) else None
    for path, found in made_of.items():
        if found is None and path.stat().st_mtime < changed:
            raise ValueError(f"{path} is older than the weights: delete it, or export again")
        if found not in (None, wanted):
            raise ValueError(f"{path} was made of other weights: delete it, or export again")


def find_hash(path: Path) -> str | None:
    """The hash of the weights that an ONNX file of `fftp export` was made of."""
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = HASH.search(content)
        return found and found[1].decode()


def refuse_public(api: HfApi, repo_id: str) -> None:
    """Refuse a repository that everybody can read: making one that is there leaves it as it is.

    Raises:
        ValueError: It is there, and public.
    """
    if api.repo_exists(repo_id) and not api.repo_info(repo_id).private:
        raise ValueError(f"{repo_id} is public; make it private on its page, or choose another")


def find_difference(api: HfApi, repo_id: str, revision: str, config: dict) -> str | None:
    """What tells a model from that of a repository, if anything does.

    Args:
        api: Who asks.
        repo_id: "user/name"; need not exist.
        revision: Branch; need not exist, and holds nothing to protect then.
        config: Config of the model to push, as in its config.json.

    Returns:
        A field that matters and differs, or weights without a config.
    """
    try:
        names = api.list_repo_files(repo_id, revision=revision)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None
    if "config.json" not in names:
        weights = filter_repo_objects(names, allow_patterns=["*.safetensors", "*.bin", "*.pt", "*.pth", "*.onnx"])
        weights = ", ".join(weights)
        return f"{weights} without a config.json" if weights else None
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo_id, "config.json", revision=revision, local_dir=folder)
        there = json.loads(Path(path).read_text(encoding="utf-8"))
    if there.get("model_type") != FFTPConfig.model_type:
        return f"one of type {there.get('model_type')!r}"
    # A config of an earlier version lacks the fields that came later.
    there, config = (
        json.loads(FFTPConfig.from_dict(fields).to_json_string(use_diff=False)) for fields in (there, config)
    )
    for name in sorted(there.keys() | config.keys()):
        if name not in INCIDENTAL and there.get(name) != config.get(name):
            return describe_difference(name, there.get(name), config.get(name))
    return None


def describe_difference(name: str, there: Any, here: Any) -> str:
    """What a field is there and here; of mappings, such as hundreds of labels, one entry or their numbers."""
    if isinstance(there, dict) and isinstance(here, dict):
        if len(there) != len(here):
            return f"{name} of {len(there)} entries where this one has {len(here)}"
        key = next(key for key in [*there, *here] if there.get(key) != here.get(key))
        return describe_difference(f"{name}[{key!r}]", there.get(key), here.get(key))
    return f"{name}={there!r} where this one has {here!r}"


def refuse_foreign_snippet(folder: Path, repo_id: str, revision: str) -> None:
    """Refuse a card that tells users to load another model.

    Raises:
        ValueError: It names another repository, or another branch of this.
    """
    found = SNIPPET.search((folder / "README.md").read_text(encoding="utf-8"))
    if found is None:
        return
    # `fftp train` starts from the main branch alone.
    loaded = (found["model"], found["revision"] or "main") if found["model"] else (found["start"], revision)
    if loaded != (repo_id, revision):
        names = [name if branch == "main" else f"{name}@{branch}" for name, branch in (loaded, (repo_id, revision))]
        option = "" if revision == "main" else f" --revision {revision}"
        raise ValueError(
            f"the card's snippet loads {names[0]!r}, not {names[1]!r}: "
            f"`fftp card {folder} --repo_id {repo_id}{option}` renders it anew"
        )


def find_replaced(api: HfApi, repo_id: str, revision: str) -> list[str]:
    """Files of an earlier push, as patterns; what others put into folders stays."""
    names = [name for name in api.list_repo_files(repo_id, revision=revision) if "/" not in name]
    return [glob.escape(name) for name in filter_repo_objects(names, allow_patterns=[*REPLACED])]


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str = "main",
    overwrite: bool = False,
    token: str | None = None,
) -> str:
    """Create the repository where it is missing, and bring it to the state of a folder.

    All files arrive in one commit: a push that breaks leaves the repository as it was, and can be repeated.

    Args:
        folder: Folder that a training left.
        repo_id: "user/name", or a name below the user who is logged in.
        private: Whether a new repository is private.
        revision: Branch; made from "main" where it is missing.
        overwrite: Whether to replace another model.
        token: Default: that of whoever is logged in.

    Returns:
        URL of the commit.

    Raises:
        FileNotFoundError: The folder lacks something that a repository needs.
        ValueError: The repository holds another model, or is public and should not be, or the card's snippet loads
            another repository or branch.
    """
    folder, api = Path(folder), HfApi(token=token)
    names = [path.name for path in files_to_push(folder)]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "/" not in repo_id:
        repo_id = f"{api.whoami()['name']}/{repo_id}"
    refuse_foreign_snippet(folder, repo_id, revision)
    if private:
        refuse_public(api, repo_id)
    if not overwrite and (difference := find_difference(api, repo_id, revision, config)):
        raise ValueError(f"{repo_id} holds another model: {difference}; --overwrite replaces it")
    repo_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
    if revision != "main":
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        allow_patterns=names,
        delete_patterns=find_replaced(api, repo_id, revision),
        revision=revision,
        commit_message="Upload FFTP model",
    )
    return commit.commit_url
