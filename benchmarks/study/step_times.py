"""Models of the study's arms, and the time of a training step of each, side by side in one run."""

import statistics
from collections.abc import Callable
from dataclasses import fields

import torch

from benchmarks.study.grid import arm_arguments
from benchmarks.timing import time_in_turn
from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPForAudioFrameClassification
from modeling_fftp.training.arguments import ModelArguments
from modeling_fftp.training.precision import gains_from_bfloat16

# Arguments that say which model is trained, but for the strides that it draws and where its weights come from.
MODEL_FIELDS = {item.name for item in fields(ModelArguments)} - {"model_name_or_path", "patch_init", "time_strides"}


def build_config(grid: dict, task: str, arm: str) -> FFTPConfig:
    """Model of an arm on a task of the grid."""
    arguments = arm_arguments(grid, task, arm)
    given = {name: arguments[name] for name in MODEL_FIELDS & arguments.keys()}
    if arguments.get("task") == "frames":
        given["problem_type"] = "multi_label_classification"
    return FFTPConfig(max_length=grid["tasks"][task]["frames"], num_labels=grid["tasks"][task]["labels"], **given)


def measure_steps(grid: dict, task: str, arms: list[str], seconds: float) -> dict[str, float]:
    """Median milliseconds per clip of a forward and a backward pass at the task's batch size, by arm.

    That of an arm which draws its stride is the mean over its strides. Models that are the same are measured once; all
    run in turn, in as many rounds as fit into the seconds, in the precision in which the grid trains here.
    """
    arguments = grid["defaults"] | grid["tasks"][task]["arguments"]
    batch, frames = arguments["per_device_train_batch_size"], grid["tasks"][task]["frames"]
    clips = torch.randn(batch, frames, 128, generator=torch.Generator().manual_seed(0))
    is_framewise = arguments.get("task") == "frames"
    is_bf16 = arguments.get("auto_bf16", False) and gains_from_bfloat16(on_cpu=True)
    names = {arm: [config.to_json_string() for config in configs_at_strides(grid, task, arm)] for arm in arms}
    calls = {}
    for arm in arms:
        for config in configs_at_strides(grid, task, arm):
            if config.to_json_string() not in calls:
                calls[config.to_json_string()] = build_step(config, clips, is_framewise, is_bf16)
    medians = {name: 1000 * statistics.median(times) / batch for name, times in time_in_turn(calls, seconds).items()}
    return {arm: statistics.mean(medians[name] for name in of_arm) for arm, of_arm in names.items()}


def configs_at_strides(grid: dict, task: str, arm: str) -> list[FFTPConfig]:
    """Models that an arm trains: one, or one for each stride that it draws."""
    configs = []
    for stride in grid["arms"][arm].get("time_strides", [None]):
        config = build_config(grid, task, arm)
        config.time_stride = config.resolve_time_stride(stride)
        configs.append(config)
    return configs


def measure_strides(grid: dict, task: str, arm: str, seconds: float) -> dict[str, float]:
    """Median milliseconds of one clip in evaluation at each stride that the grid evaluates, by `stride_name`."""
    strides = grid["defaults"].get("eval_time_strides", [])
    if not strides:
        return {}
    model = FFTPForAudioClassification(build_config(grid, task, arm)).eval()
    clip = torch.randn(1, grid["tasks"][task]["frames"], 128, generator=torch.Generator().manual_seed(0))

    def build_call(stride: int) -> Callable[[], None]:
        @torch.inference_mode()
        def call() -> None:
            model(clip, time_stride=stride)

        return call

    times = time_in_turn({stride_name(stride): build_call(stride) for stride in strides}, seconds)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def stride_name(stride: int) -> str:
    """What the time at a stride is recorded as."""
    return f"one clip at stride {stride}"


def build_step(config: FFTPConfig, clips: torch.Tensor, is_framewise: bool, is_bf16: bool) -> Callable[[], None]:
    """A forward and a backward pass of a new model, as a training computes them."""
    model_class = FFTPForAudioFrameClassification if is_framewise else FFTPForAudioClassification
    model = model_class(config).train()
    labels = torch.arange(len(clips)) % config.num_labels
    if is_framewise:
        steps = config.time_patches(clips.shape[1])
        labels = torch.nn.functional.one_hot(labels, config.num_labels)[:, None].expand(-1, steps, -1)

    def step() -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss = model(clips, labels=labels).loss
        loss.backward()

    return step
