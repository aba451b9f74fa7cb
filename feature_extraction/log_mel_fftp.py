"""Log-mel filterbank features, numerically those of Kaldi's `compute-fbank-feats`, as functions of torch tensors.

Source: Kaldi `feat/feature-window.cc` and `feat/mel-computations.cc`, with the options of the AST front end: Hann
window, 25 ms every 10 ms, pre-emphasis 0.97, DC removal, power spectrum, 20 Hz to Nyquist, no dither, whole windows.
Where a filter is too narrow to hold a frequency of the transform, Kaldi stops. Here, as in the port that AST uses, the
bin is constant: one of 128 at 16 kHz, four at 8 kHz.
"""

from functools import lru_cache
from itertools import accumulate
from math import log

import torch

WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
PREEMPHASIS = 0.97
LOW_FREQUENCY = 20.0
# Kaldi's floor under the logarithm: the epsilon of a 32-bit float.
ENERGY_FLOOR = torch.finfo(torch.float32).eps
# Frames processed at once: their spectra stay in the cache, and those of an hour take no more memory than a minute's.
BLOCK_FRAMES = 2048
MEL_GROUPS = 4


def window_length(sampling_rate: int) -> int:
    """Samples in one window of 25 ms."""
    return int(WINDOW_SECONDS * sampling_rate)


def hop_length(sampling_rate: int) -> int:
    """Samples between the starts of two windows, 10 ms."""
    return int(HOP_SECONDS * sampling_rate)


def num_frames(num_samples: int, sampling_rate: int) -> int:
    """Whole windows in `num_samples` samples (Kaldi's `snip_edges`)."""
    return max(0, (num_samples - window_length(sampling_rate)) // hop_length(sampling_rate) + 1)


def num_samples(num_frames: int, sampling_rate: int) -> int:
    """Samples that `num_frames` windows span."""
    return (num_frames - 1) * hop_length(sampling_rate) + window_length(sampling_rate)


def fft_length(sampling_rate: int) -> int:
    """The next power of two at or above the window's length, in samples."""
    return 1 << (window_length(sampling_rate) - 1).bit_length()


def hertz_to_mel(frequency: torch.Tensor | float) -> torch.Tensor | float:
    """Mel scale of Kaldi: 1127 ln(1 + f / 700)."""
    if isinstance(frequency, torch.Tensor):
        return 1127.0 * torch.log1p(frequency / 700.0)
    return 1127.0 * log(1.0 + frequency / 700.0)


@lru_cache(maxsize=16)
def mel_filter_bank(num_mel_bins: int, sampling_rate: int, device: str = "cpu") -> torch.Tensor:
    """Triangular filters, equally spaced and linear on the mel scale.

    Returns:
        Weights of shape (fft_length / 2 + 1, num_mel_bins), float32. The Nyquist bin has no weight, as in Kaldi.
    """
    n_fft = fft_length(sampling_rate)
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu") * sampling_rate / n_fft
    low, high = hertz_to_mel(LOW_FREQUENCY), hertz_to_mel(sampling_rate / 2)
    edges = torch.linspace(low, high, num_mel_bins + 2, dtype=torch.float64, device="cpu")
    mel = hertz_to_mel(frequencies)[:, None]
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    weights = torch.minimum((mel - left) / (center - left), (right - mel) / (right - center)).clamp(min=0.0)
    weights[-1] = 0.0
    return weights.to(device=device, dtype=torch.float32)


@lru_cache(maxsize=16)
def mel_filter_groups(
    num_mel_bins: int, sampling_rate: int, device: str = "cpu"
) -> list[tuple[slice, slice, torch.Tensor]]:
    """The filter bank as groups of neighbouring filters, each with the frequencies that it weighs.

    Most weights of the whole bank are 0; the groups leave most of the products with them out.

    Returns:
        Of each group the frequencies and the filters that it holds, and their weights (frequencies, filters).
    """
    groups, first = [], 0
    for weights in mel_filter_bank(num_mel_bins, sampling_rate, device).tensor_split(MEL_GROUPS, dim=1):
        used = weights.any(dim=1).int()
        rows = slice(int(used.argmax()), len(used) - int(used.flip(0).argmax()))
        groups.append((rows, slice(first, first + weights.shape[1]), weights[rows].contiguous()))
        first += weights.shape[1]
    return groups


@lru_cache(maxsize=16)
def hann_window(sampling_rate: int, device: str = "cpu") -> torch.Tensor:
    """Symmetric Hann window of 25 ms, shape (window_length,), float32."""
    window = torch.hann_window(window_length(sampling_rate), periodic=False, dtype=torch.float64, device="cpu")
    return window.to(device=device, dtype=torch.float32)


def frame(waveform: torch.Tensor, sampling_rate: int) -> torch.Tensor:
    """View a waveform (..., samples) as overlapping windows (..., frames, window_length); no copy."""
    return waveform.unfold(-1, window_length(sampling_rate), hop_length(sampling_rate))


@torch.no_grad()
def log_mel_from_frames(frames: torch.Tensor, num_mel_bins: int, sampling_rate: int) -> torch.Tensor:
    """Log-mel energies of windows of samples; no gradient reaches them.

    Args:
        frames: Windows of a waveform in [-1, 1], (frames, window_length), float32.
        num_mel_bins: Number of mel filters.
        sampling_rate: Samples per second.

    Returns:
        Natural logarithm of the mel energies, (frames, num_mel_bins), on the device of `frames`.
    """
    groups = mel_filter_groups(num_mel_bins, sampling_rate, str(frames.device))
    window = hann_window(sampling_rate, str(frames.device))
    output = frames.new_empty(frames.shape[0], num_mel_bins)
    # Zeros behind each window stay: they pad it to the length of the transform.
    padded = frames.new_zeros(min(BLOCK_FRAMES, frames.shape[0]), fft_length(sampling_rate))
    for block, result in zip(frames.split(BLOCK_FRAMES), output.split(BLOCK_FRAMES), strict=True):
        emphasized = padded[: len(block), : block.shape[1]]
        centered = block - block.mean(dim=1, keepdim=True)
        torch.sub(centered[:, 1:], centered[:, :-1], alpha=PREEMPHASIS, out=emphasized[:, 1:])
        # The sample before the first is taken to be equal to it (Kaldi's Preemphasize).
        torch.mul(centered[:, 0], 1.0 - PREEMPHASIS, out=emphasized[:, 0])
        emphasized.mul_(window)
        spectrum = torch.view_as_real(torch.fft.rfft(padded[: len(block)]))
        # Faster than a sum over the axis of real and imaginary parts.
        power = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
        for rows, columns, weights in groups:
            # With `out`, which autocast leaves alone: it would round energies to its own precision.
            torch.matmul(power[:, rows], weights, out=result[:, columns])
        result.clamp_(min=ENERGY_FLOOR).log_()
    return output


def log_mel_of_clips(
    waveforms: list[torch.Tensor], num_mel_bins: int, sampling_rate: int
) -> tuple[torch.Tensor, list[int]]:
    """Log-mel energies of waveforms of unequal length, computed as one batch of windows.

    The clips lie one after another in one signal, so that its windows are a view of it.

    Args:
        waveforms: Samples in [-1, 1], (samples,) each, at least one window long, float32, on one device.
        num_mel_bins: Number of mel filters.
        sampling_rate: Samples per second.

    Returns:
        Natural logarithms of the energies, (rows, num_mel_bins), and the first row of each clip, of which
        `num_frames` rows follow. The rows between two clips, whose windows reach into both, mean nothing.
    """
    hop = hop_length(sampling_rate)
    # In hops: every clip starts on one.
    ends = list(accumulate(-(-len(waveform) // hop) for waveform in waveforms))
    starts = [0, *ends[:-1]]
    signal = waveforms[0]
    if len(waveforms) > 1:
        signal = signal.new_zeros(hop * ends[-1])
        for waveform, start in zip(waveforms, starts, strict=True):
            signal[hop * start : hop * start + len(waveform)] = waveform
    return log_mel_from_frames(frame(signal, sampling_rate), num_mel_bins, sampling_rate), starts
