"""Changes to sound: what each does, and that the generator decides."""

import pytest
import torch

from feature_extraction.waveform_augmentation import ColoredNoise, Mixup, RandomCrop, SpeedPerturb


def test_mixup_mixes_sound_and_labels_alike(generator):
    waves = [torch.randn(1000) + 3, torch.randn(400), torch.randn(1000)]
    before = [wave.clone() for wave in waves]
    labels = torch.eye(3)
    mixed, targets = Mixup().apply(waves, labels, torch.tensor([1, 2, 0]), torch.tensor([0.75, 1.0, 0.5]))
    centered = [wave - wave.mean() for wave in waves]
    torch.testing.assert_close(mixed[0][:400], 0.75 * centered[0][:400] + 0.25 * centered[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed[0][400:], 0.75 * centered[0][400:], atol=1e-6, rtol=0)
    assert mixed[1] is waves[1]
    assert targets.tolist() == [[0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]
    assert all((wave == old).all() for wave, old in zip(waves, before, strict=True))


def test_mixup_probability_and_weights(generator):
    _, weight = Mixup(alpha=10, probability=0.3).draw(5000, generator)
    assert (weight < 1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert weight[weight < 1].mean().item() == pytest.approx(0.5, abs=0.02)
    assert weight[weight < 1].std().item() == pytest.approx((1 / (4 * 21)) ** 0.5, abs=0.02)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_mixup_mixes_every_clip_with_another(size):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        partner, weight = Mixup(probability=1.0).draw(size, generator)
        assert (partner != torch.arange(size)).all()
        assert ((partner >= 0) & (partner < size) & (weight < 1)).all()


def test_a_clip_alone_is_not_mixed():
    wave = torch.arange(9.0)
    mixed, labels = Mixup(probability=1.0)([wave], torch.eye(1))
    assert mixed[0] is wave
    assert labels.tolist() == [[1.0]]


def test_crop_keeps_short_clips_and_reaches_both_ends(generator):
    crop = RandomCrop(10)
    waves = [torch.arange(4), *[torch.arange(13)] * 200]
    cropped = crop(waves, generator)
    assert cropped[0].tolist() == [0, 1, 2, 3]
    assert {wave[0].item() for wave in cropped[1:]} == {0, 1, 2, 3}
    assert all(len(wave) == 10 for wave in cropped[1:])


def test_speed_changes_length_and_pitch(generator):
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
    faster, same, slower = SpeedPerturb().apply([tone, tone, tone], [1.1, 1.0, 0.9])
    assert [len(wave) for wave in (faster, same, slower)] == [pytest.approx(16000 / f, abs=2) for f in (1.1, 1, 0.9)]
    assert torch.equal(same, tone)
    for wave, pitch in ((faster, 1100), (slower, 900)):
        spectrum = torch.fft.rfft(wave[:8000]).abs()
        assert spectrum.argmax() * 2 == pytest.approx(pitch, abs=2)
    factors = torch.tensor(SpeedPerturb(0.2).draw([1] * 1000, generator))
    assert factors.min() >= 0.8
    assert factors.max() <= 1.2
    assert factors.std() == pytest.approx(0.4 / 12**0.5, rel=0.1)


def test_noise_has_the_ratio_and_colour_asked_for(generator):
    tone = 0.3 * torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
    for exponent in (0.0, 2.0):
        (noise,) = ColoredNoise(1.0, min_exponent=exponent, max_exponent=exponent).draw([16000], generator)
        spectrum = torch.fft.rfft(noise).abs().square()
        # Per bin, an octave is 2 ** exponent times weaker than the one below.
        assert spectrum[500:1000].mean() / spectrum[1000:2000].mean() == pytest.approx(2**exponent, rel=0.2)
    (noisy,) = ColoredNoise(1.0, 20.0, 20.0)([tone], generator)
    ratio = tone.square().mean() / (noisy - tone).square().mean()
    assert 10 * ratio.log10() == pytest.approx(20, abs=0.1)
    drawn = ColoredNoise(1.0, min_snr=10, max_snr=30).draw([400] * 300, generator)
    ratios = torch.tensor([-10 * noise.square().mean().log10() for noise in drawn])
    assert ratios.min() < 11
    assert ratios.max() > 29
    assert ratios.mean().item() == pytest.approx(20, abs=1)
    drawn = ColoredNoise(0.25).draw([8] * 1000, generator)
    assert sum(noise is not None for noise in drawn) == pytest.approx(250, abs=60)
    (empty, silent) = ColoredNoise(1.0)([torch.zeros(1), torch.zeros(100)], generator)
    assert not empty.any()
    assert not silent.any()


def test_a_crop_of_seconds_times_a_rate_is_one_of_samples(generator):
    (cut,) = RandomCrop(0.25 * 16000)([torch.ones(8000)], generator)
    assert len(cut) == 4000


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomCrop(-5), "num_samples=-5 must be a whole number of at least 1"),
        (lambda: RandomCrop(0.5 * 22050 / 4), "num_samples=2756.25 must be a whole number of at least 1"),
        (lambda: SpeedPerturb(2.5), r"max_change=2.5 must lie in \[0, 1\)"),
        (lambda: Mixup(probability=5), r"probability=5 must lie in \[0, 1\]"),
        (lambda: Mixup(alpha=0), "alpha=0 must be positive"),
        (lambda: ColoredNoise(min_snr=40, max_snr=10), "min_snr=40 is above max_snr=10"),
        (
            lambda: Mixup()([torch.ones(9)] * 3, torch.arange(3)),
            r"labels has shape \(3,\); expected \(batch, labels",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
