"""Names as users may choose them, and what reads LaTeX back."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from epsbench.harness.latex import SPECIAL, SYMBOLS

HOSTILE = (
    "<script>alert('x')</script>", "\"quoted\" & 'quoted'", "100 % of $x_1^2$ {a} \\end{tabular} #~`` -- ,, ?`",
    "n" * 200, "שלום עולם", "مرحبا", "模型", "=1+1", "C:\\new_table", "a\nb", "ε-model → ∞", "]]>", "x;y,z\t|", "🤖",
    "a\u200bb\u200d\ufeffc", "\u202egnp.exe\u202c", "👩‍💻🏳️‍🌈é", "one\r\ntwo\ttab", "</script><!--",
    "50 %\\% \\\\ \\input{x}",
    "@SUM(1)", "a\u2028b\u2029c\x00\x7f", "&lt;b&gt; &#x202e;",
)  # fmt: skip
"""Names with HTML, quotes, LaTeX's specials, 200 letters, and text from right to left."""
NAMES = st.one_of(
    st.sampled_from(HOSTILE), st.text(min_size=1, max_size=40),
    st.text(alphabet="\\{}$&#^_~%<>|\"'`-,=?! aε∞א", min_size=1, max_size=30),
)  # fmt: skip
COMMAND = re.compile(
    r"\\epsbenchtext\{([^{}]*)\}\{([^{}]*)\}|\\(text\w+)\{\}|\\allowbreak\{\}|\\([&%$#_{}])|\$([^$]*)\$|\{\}|(.)", re.S
)


def read_back(latex: str) -> str:
    """The text that LaTeX sets for what `escape` writes: an independent reading of its commands."""
    commands = {value: key for key, value in SPECIAL.items() if value.startswith("\\text")}
    formulas = {value: key for key, value in SYMBOLS.items()}
    read = []
    for match in COMMAND.finditer(latex):
        other, numbers, command, special, formula, plain = match.groups()
        if other is not None:
            assert numbers == " ".join(f"U+{ord(each):04X}" for each in other)
            read.append(other)
        elif command:
            read.append(commands[f"\\{command}{{}}"])
        elif special or plain:
            # Anything that LaTeX would take for a command is gone by now.
            assert special or plain not in "\\{}$&#^_%<>|\"'`"
            read.append(special or (" " if plain == "~" else plain))
        elif formula is not None:
            read.append(formulas[formula])
    return "".join(read)
