"""Mamba: its class token, its residual, its time steps, and how it starts."""

import pytest
import torch

from modeling_fftp import (
    FFTPForAudioClassification,
    FFTPModel,
)
from tests.support import BACKBONES, build_classifier


def test_mamba_class_token_stands_in_the_middle_of_the_real_tokens(make_config):
    model = build_classifier(make_config(**BACKBONES["fo-bi"]))
    mask = torch.ones(2, 100, dtype=torch.long)
    mask[1, 47:] = 0
    tokens, token_mask, places = model.fftp.embeddings(torch.randn(2, 100, 128), mask)
    # 19 and 8 patches.
    assert places.tolist() == [[9], [4]]
    assert token_mask.sum(dim=1).tolist() == [20, 9]
    for row, place in enumerate((9, 4)):
        torch.testing.assert_close(tokens[row, place], model.fftp.embeddings.cls_token[0, 0])


def test_mamba_hidden_states_and_float32_residual(make_config):
    model = build_classifier(make_config(**BACKBONES["fo-bi"])).to(torch.bfloat16)
    outputs = model(torch.randn(2, 100, 128, dtype=torch.bfloat16), output_hidden_states=True)
    assert [state.shape for state in outputs.hidden_states] == [(2, 20, 48)] * 3
    assert outputs.hidden_states[-1].dtype == torch.float32
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.logits.isfinite().all()


@pytest.mark.parametrize("variant", ["fo-fo", "fo-bi", "bi-bi"])
def test_mamba_starts_as_mamba_ssm_does_and_keeps_it_when_loaded(make_config, tmp_path, variant):
    config = make_config(**BACKBONES[variant])
    model = FFTPModel(config)
    model.save_pretrained(tmp_path)
    loaded = FFTPForAudioClassification.from_pretrained(tmp_path).fftp
    for mixer, again in zip(model.layers, loaded.layers, strict=True):
        mixer, again = mixer.mixer, again.mixer
        # Smaller where there are more residual branches.
        bound = (mixer.out_proj.in_features * config.num_hidden_layers) ** -0.5
        assert 0.9 * bound < mixer.out_proj.weight.abs().max() <= bound
        assert 0.9 * mixer.in_proj.in_features**-0.5 < mixer.in_proj.weight.abs().max()
        for space in filter(None, (mixer.state_space, mixer.state_space_reverse)):
            decays = [decay for decay in (space.A_log, space.A_log_reverse) if decay is not None]
            assert len(decays) == (2 if variant == "fo-bi" else 1)
            for decay in decays:
                torch.testing.assert_close(decay.exp(), torch.arange(1.0, 17).expand_as(decay))
            assert (space.D == 1).all()
            steps = torch.nn.functional.softplus(space.dt_proj.bias)
            assert 0.00099 < steps.min() < 0.01
            assert 0.02 < steps.max() < 0.101
            assert space.dt_proj.weight.abs().max() <= config.time_step_rank**-0.5
        for name, parameter in mixer.named_parameters():
            assert (parameter == again.get_parameter(name)).all()


def test_time_steps_add_their_bias_in_float32(make_config):
    """Rounded to bfloat16 with its bias, a time step would be off by a percent."""
    projection = FFTPModel(make_config(backbone="mamba")).layers[0].mixer.state_space.dt_proj
    nothing = torch.zeros(2, 5, projection.in_features)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(projection(nothing), projection.bias.expand(2, 5, -1))
        assert projection(nothing).dtype == torch.float32
        halved = projection.to(torch.bfloat16)
        assert torch.equal(halved(nothing.bfloat16()), halved.bias.float().expand(2, 5, -1))


def test_time_steps_start_between_their_limits_and_not_below_the_floor(make_config):
    config = make_config(backbone="mamba", time_step_min=1e-4, time_step_max=1e-2, time_step_floor=1e-3)
    bias = FFTPModel(config).layers[0].mixer.state_space.dt_proj.bias
    steps = torch.nn.functional.softplus(bias)
    assert steps.min().item() == pytest.approx(1e-3, rel=1e-3)
    # Half of them would lie below, uniform in the logarithm.
    assert (steps < 1.01e-3).float().mean().item() == pytest.approx(0.5, abs=0.2)
    assert 0.007 < steps.max() < 0.0101
