"""A note -> samples: the instruments that the synthetic music is played on.

An instrument is a function of the note's frequency in Hz, the seconds it is held, the sample rate
and a brightness (0 dark .. 1 bright); it returns the note's wave [shape=(n,)].
"""

from collections.abc import Callable

import numpy as np
from scipy import signal

Instrument = Callable[[float, float, int, float], np.ndarray]
Spectrum = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def clock(seconds: float, rate: int) -> np.ndarray:
    return np.arange(round(seconds * rate)) / rate


def noise(size: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(size)  # fixed seed: the same noise every time


def filtered(wave: np.ndarray, rate: int, cutoff: float, kind: str = "lowpass") -> np.ndarray:
    cutoff = min(cutoff, 0.45 * rate)
    return signal.sosfilt(signal.butter(2, cutoff, kind, fs=rate, output="sos"), wave)


def gate(t: np.ndarray, held: float, attack: float, release: float) -> np.ndarray:
    return np.minimum(t / attack, 1) * np.clip((held + release - t) / release, 0, 1)


def voice(
    spectrum: Spectrum,
    attack: float,
    release: float,
    decay: float = 0.0,
    vibrato: float = 0.0,
    ratios: tuple[float, ...] = (1,),
    drive: float = 0.0,
) -> Instrument:
    """Sustained tone; `spectrum` gives its harmonics, `ratios` those of several strings."""

    def instrument(frequency: float, seconds: float, rate: int, brightness: float) -> np.ndarray:
        t = clock(seconds + release, rate)
        wave = np.zeros(t.size)
        for speed, hertz in enumerate(frequency * np.array(ratios), start=5):
            h = np.arange(1, np.clip(0.45 * rate / hertz, 2, 64))  # none near Nyquist: no aliasing
            period = np.fft.irfft(-1j * np.r_[0, spectrum(h, h * hertz, brightness)], 2048) * 1024
            depth = hertz * (2 ** (vibrato / 1200) - 1) / (2 * np.pi * speed)
            sway = depth * np.minimum(2 * t, 1) * np.sin(2 * np.pi * speed * t) if vibrato else 0
            wave += period[((hertz * t + sway) * 2048).astype(int) & 2047]
        if drive:
            wave = filtered(
                np.tanh(drive * (0.5 + brightness) * wave), rate, 2000 + 2000 * brightness
            )
        return wave * gate(t, seconds, attack, release) * np.exp(-decay * t)

    return instrument


def fm(ratio: float, index: float, ring: float, release: float) -> Instrument:
    """Struck tone by frequency modulation; the overtones die away before the tone does."""

    def instrument(frequency: float, seconds: float, rate: int, brightness: float) -> np.ndarray:
        t = clock(seconds + release, rate)
        fade = np.exp(-t / ring)
        depth = index * (0.4 + 1.2 * brightness) * fade * fade * fade
        wave = np.sin(2 * np.pi * frequency * t + depth * np.sin(2 * np.pi * frequency * ratio * t))
        return wave * fade * gate(t, seconds, 0.002, release)

    return instrument


def pluck(frequency: float, seconds: float, rate: int, brightness: float) -> np.ndarray:
    """Karplus-Strong string: a burst of noise in a tuned, slightly damped loop."""
    damping = 0.5 - 0.3 * brightness
    period, fraction = divmod(rate / frequency - damping, 1)
    loop = np.convolve([1 - damping, damping], [1 - fraction, fraction])
    t = clock(max(seconds, 0.5) + 0.2, rate)
    burst = filtered(noise(int(period)), rate, 2000 + 5000 * brightness)
    burst = np.r_[burst - burst.mean(), np.zeros(t.size - burst.size)]
    wave = signal.lfilter([1], np.r_[1, np.zeros(int(period) - 1), -0.996 * loop], burst)
    return wave * gate(t, max(seconds, 0.5), 0.001, 0.2)


def drum(
    skin: float, pitch: float, dive: float, thud: float, hiss: float, cutoff: float, snap: float
) -> Instrument:
    """Skin that dives to ``pitch`` Hz, fading in ``thud`` s, and hiss fading in ``snap`` s."""

    def instrument(frequency: float, seconds: float, rate: int, brightness: float) -> np.ndarray:
        t = clock(6 * max(thud, snap), rate)
        phase = pitch * frequency / 261.6 * t + dive * (1 - np.exp(-t / 0.025))
        wires = filtered(hiss * noise(t.size), rate, cutoff * (0.7 + 0.6 * brightness), "highpass")
        return skin * np.sin(2 * np.pi * phase) * np.exp(-t / thud) + wires * np.exp(-t / snap)

    return instrument


def vowel(h: np.ndarray, f: np.ndarray, c: float) -> np.ndarray:
    """Spectrum whose two formants move from "oo" to "ah" with the brightness."""
    first, second = (np.exp(-(((f - hertz - 400 * c) / 150) ** 2)) for hertz in (350, 850))
    return (first + 0.5 * second + 0.25) / h


DETUNED, POWER_CHORD = (0.995, 1, 1.006), (1, 1.498, 2.003)  # ratios of strings that sound at once

# Spectra are functions of harmonic number h, its frequency f and the brightness c.
INSTRUMENTS = {
    "square": voice(lambda h, f, c: np.sin(np.pi * h * (0.5 - 0.37 * c)) / h, 0.002, 0.02, 1, 15),
    "triangle": voice(lambda h, f, c: np.sin(np.pi * h / 2) / h**2, 0.003, 0.03),
    "saw": voice(
        lambda h, f, c: 1 / (h + h * (f / (700 + 3500 * c)) ** 2), 0.004, 0.12, 2, 0, DETUNED
    ),
    "organ": voice(
        lambda h, f, c: np.isin(h, (1, 2, 3, 4, 6, 8)) / h ** (1.3 - c), 0.006, 0.04, 0, 8
    ),
    "choir": voice(vowel, 0.6, 1.2, 0, 18, (0.996, 1.004)),
    "reed": voice(
        lambda h, f, c: (0.4 + 0.6 * (h % 2)) / h ** (1.6 - 0.7 * c), 0.03, 0.05, 0.3, 22
    ),
    "fuzz": voice(lambda h, f, c: 1 / h, 0.003, 0.02, 0, 0, POWER_CHORD, drive=5),
    "solo": voice(lambda h, f, c: 1 / h, 0.005, 0.04, 0, 35, drive=4),
    "sub": voice(lambda h, f, c: 1.0 * (h == 1), 0.01, 0.05, drive=1.5),
    "bell": fm(3.5, 2.0, 0.5, 1.0),
    "keys": fm(1, 1.3, 0.9, 0.2),
    "box": fm(5.4, 0.9, 0.35, 0.7),
    "bass": fm(1, 1.6, 0.7, 0.06),
    "pluck": pluck,
    "kick": drum(1.0, 48, 3.0, 0.11, 0.2, 1000, 0.004),
    "tom": drum(0.9, 90, 1.0, 0.12, 0.1, 1000, 0.02),
    "snare": drum(0.5, 190, 0.3, 0.05, 0.5, 1500, 0.07),
    "clap": drum(0.0, 100, 0.0, 0.01, 0.7, 1100, 0.08),
    "hat": drum(0.0, 100, 0.0, 0.01, 0.45, 6500, 0.025),
    "open_hat": drum(0.0, 100, 0.0, 0.01, 0.4, 5500, 0.09),
    "crash": drum(0.0, 100, 0.0, 0.01, 0.5, 3500, 0.45),
    "ride": drum(0.04, 4470, 0.0, 0.13, 0.25, 6000, 0.12),
}
