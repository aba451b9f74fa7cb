"""The densest stride that a budget allows, as it is measured on the machine."""

import pytest

from modeling_fftp.serving.budget import candidate_strides, choose_time_stride, real_time_factors
from modeling_fftp.serving.load import warn_of_gaps
from modeling_fftp.serving.tag import load_tagger
from modeling_fftp.times_fftp import frame_seconds


def test_the_densest_affordable_stride_is_taken():
    factors = {2: 0.05, 5: 0.02, 10: 0.011, 20: 0.012}
    assert choose_time_stride(factors, 0.1) == 2
    assert choose_time_stride(factors, 0.02) == 5
    assert choose_time_stride(factors, 0.0115) == 10
    with pytest.raises(
        ValueError, match=r"0\.001 is out of reach on this machine: stride 10, the fastest, takes 0\.011"
    ):
        choose_time_stride(factors, 0.001)


def test_what_patches_skip_is_said(trained, caplog):
    config = load_tagger(trained).model.config
    frames = config.patch_size[1]
    warn_of_gaps(config, frames)
    assert not caplog.text
    warn_of_gaps(config, frames + 7)
    assert f"of {frames + 7} frames each patch hears {frames}, the others nothing" in caplog.text


def test_strides_are_measured_as_they_will_run(trained):
    tagger = load_tagger(trained)
    own = tagger.model.config.time_stride
    assert candidate_strides(tagger.model.config) == [own, 2 * own, 4 * own]
    heard = []
    tagger.model.register_forward_hook(
        lambda module, inputs, kwargs, output: heard.append(kwargs["time_stride"]), with_kwargs=True
    )
    factors = real_time_factors(tagger)
    assert [*factors] == [*dict.fromkeys(heard)] == [own, 2 * own, 4 * own]
    assert all(factor > 0 for factor in factors.values())
    assert tagger.model.config.time_stride == own
    # No stride is as long as a window.
    short = 3 * own * frame_seconds(16000)[1]
    assert [*real_time_factors(tagger, short, hop_seconds=short, batch_size=2)] == [own, 2 * own]
    tagger.model.config.time_strides = (2, 7)
    assert candidate_strides(tagger.model.config) == [2, 7]
