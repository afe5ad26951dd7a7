"""Text for LaTeX: every character as it is, and none of them a command. No torch."""

from __future__ import annotations

from itertools import groupby

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}", "\xa0": "~", "\n": " ", "\t": " ", **{each: f"\\{each}" for each in "&%$#_{}"},
}  # fmt: skip
SYMBOLS = {
    "ε": r"\varepsilon", "∞": r"\infty", "→": r"\to", "≤": r"\leq", "≥": r"\geq", "−": "-", "±": r"\pm",
    "×": r"\times", "·": r"\cdot", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "η": r"\eta",
    "θ": r"\theta", "κ": r"\kappa", "λ": r"\lambda", "μ": r"\mu", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma",
    "τ": r"\tau", "φ": r"\varphi", "χ": r"\chi", "ψ": r"\psi", "ω": r"\omega", "Δ": r"\Delta", "Σ": r"\Sigma",
    "Ω": r"\Omega", "∇": r"\nabla", "‖": r"\|", "≈": r"\approx", "∈": r"\in", "½": r"\tfrac12",
    **{digit: f"^{value}" for value, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}, "⁻": "^-",
    **{digit: f"_{value}" for value, digit in enumerate("₀₁₂₃₄₅₆₇₈₉")},
}  # fmt: skip
"""What reports write in formulas."""
KNOWN = (
    (0x20, 0x7E), (0xA1, 0xAC), (0xAE, 0x125), (0x128, 0x137), (0x139, 0x13E), (0x141, 0x148), (0x14A, 0x165),
    (0x168, 0x17E), (0x218, 0x21B), (0x2010, 0x2016), (0x2018, 0x201A), (0x201C, 0x201E), (0x2020, 0x2022),
    (0x2026, 0x2026), (0x2030, 0x2030), (0x2039, 0x203A), (0x20AC, 0x20AC), (0x2122, 0x2122),
)  # fmt: skip
"""The characters that pdfLaTeX sets with the font encoding T1, first and last of each range (t1enc.dfu, ts1enc.dfu)."""
LIGATURES = frozenset("-,")
"""Characters that two of make another: ``--`` is a dash."""
UNBROKEN = 20
"""Letters of a name after which a line may break."""
BREAKS_AFTER = frozenset(",;/=)")

DEFINITION = r"\providecommand{\epsbenchtext}[2]{\ifdefined\Umathchar#1\else\texttt{\scriptsize #2}\fi}"
"""The command that `escape` writes for characters that pdfLaTeX lacks, such as Hebrew or Chinese ones.

LuaLaTeX and XeLaTeX set the characters themselves, where the document's font has them; pdfLaTeX shows their numbers.
"""
PACKAGES = r"\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx,longtable,siunitx}"
"""What a document that includes the tables needs."""


def escape(text: str, *, breakable: bool = False) -> str:
    """The text for LaTeX's text mode; it needs the font encoding T1, and `DEFINITION`.

    With ``breakable``, a line may break within a long name.
    """
    written: list[str] = []
    before, unbroken = "", 0
    for known, run in groupby(text, key=_is_known):
        if not known:
            other = "".join(run)
            written.append(f"\\epsbenchtext{{{other}}}{{{' '.join(f'U+{ord(each):04X}' for each in other)}}}")
            before, unbroken = "", 0
            continue
        for each in run:
            if each == before and each in LIGATURES:
                written.append("{}")
            written.append(SPECIAL.get(each) or (f"${SYMBOLS[each]}$" if each in SYMBOLS else each))
            before, unbroken = each, 0 if each == " " else unbroken + 1
            if breakable and (unbroken >= UNBROKEN or (each in BREAKS_AFTER and unbroken > 4)):
                written.append(r"\allowbreak{}")
                unbroken = 0
    return "".join(written)


def _is_known(character: str) -> bool:
    if character in SPECIAL or character in SYMBOLS:
        return True
    return any(first <= ord(character) <= last for first, last in KNOWN)
