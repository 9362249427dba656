"""Digits of π and e by integer arithmetic."""

from __future__ import annotations

_GUARD = 10  # more digits than asked for: each term of a series is cut off


def pi_digits(count: int) -> list[int]:
    """The first `count` digits, 3 included: π = 16·arctan(1/5) − 4·arctan(1/239) (Machin)."""
    one = 10 ** (count - 1 + _GUARD)
    return _leading(16 * _arctan(5, one) - 4 * _arctan(239, one), count)


def e_digits(count: int) -> list[int]:
    """The first `count` digits, 2 included: e = Σ 1/k!."""
    one = 10 ** (count - 1 + _GUARD)
    terms = 2
    factorial = 2
    while factorial < one:
        terms += 1
        factorial *= terms
    numerator, denominator = _factorials(0, terms)
    return _leading(one + one * numerator // denominator, count)


def _arctan(inverse: int, one: int) -> int:
    """one · arctan(1/inverse) = one · Σ (−1)^k / ((2k + 1)·inverse^(2k + 1))."""
    power, total, odd = one // inverse, 0, 1
    while power:
        total += power // odd if odd % 4 == 1 else -(power // odd)
        power //= inverse * inverse
        odd += 2
    return total


def _factorials(low: int, high: int) -> tuple[int, int]:
    """Σ low!/k! over low < k ≤ high as a fraction, by halves: few of its products are long."""
    if high - low == 1:
        return 1, high
    middle = (low + high) // 2
    left, left_denominator = _factorials(low, middle)
    right, right_denominator = _factorials(middle, high)
    return left * right_denominator + right, left_denominator * right_denominator


def _leading(number: int, count: int) -> list[int]:
    return [int(digit) for digit in str(number // 10**_GUARD)[:count]]
