"""The scripts of `healthmw completion`, each in the language of its shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from healthmw.cli._completion import Command, Option

_BASH = """\
# Completion of healthmw for bash: made by `healthmw completion bash`.
_healthmw() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} at
    COMPREPLY=()
    for ((at = 2; at < COMP_CWORD; at++)); do
        [[ ${{COMP_WORDS[at]}} == -- ]] || continue
        if declare -F _command_offset >/dev/null; then
            _command_offset $((at + 1))
        elif ((COMP_CWORD == at + 1)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$word")
        else
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
        fi
        return
    done
    # bash makes a word of its own of the `=` in --option=value.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    [[ $word != -* ]] || before= # an option, whether or not the one before it had a value
    local words=
    case $COMP_CWORD,${{COMP_WORDS[1]}},$before in
        1,*) words='{commands}' ;;
{values}
{options}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -F _healthmw healthmw"""

_ZSH = """\
#compdef healthmw
# Completion of healthmw for zsh: made by `healthmw completion zsh`.
_healthmw() {{
    local at=$words[(i)--]
    if (( at < CURRENT )); then
        shift $at words
        (( CURRENT -= at ))
        _normal
        return
    fi
    if (( CURRENT == 2 )); then
        local -a commands=(
{commands}
        )
        _describe command commands
        return
    fi
    local name=$words[2]
    shift words
    (( CURRENT -= 1 ))
    case $name in
{options}
    esac
}}
if [[ $funcstack[1] == _healthmw ]]; then
    _healthmw "$@"
else
    compdef _healthmw healthmw
fi"""

_FISH = """\
# Completion of healthmw for fish: made by `healthmw completion fish`.
function __healthmw_at
    set -l words (commandline -opc)
    contains -- -- $words; and return 1
    test (count $words) -eq 1; and test -z "$argv"; and return 0
    test (count $words) -gt 1; and test "$words[2]" = "$argv"
end
function __healthmw_command
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words); or return
    set -e words[1..$at]
    complete -C (string join -- ' ' (string escape -- $words) (commandline -ct))
end
complete -c healthmw -f
complete -c healthmw -n 'contains -- -- (commandline -opc)' -a '(__healthmw_command)'
{commands}"""


def bash(commands: Sequence[Command]) -> str:
    """Return the script for bash (4.4 or newer)."""
    takers: dict[str, set[str]] = {}  # by what completes the value, the options that take it
    words = []
    for command in commands:
        for option in command.options:
            if option.name and option.value:
                takers.setdefault(_bash_value(option), set()).add(option.name)
        offered = [
            word for one in command.options for word in ([one.name] if one.name else one.words)
        ]
        offered += ["--"] * command.runs
        words.append(f"        *,{command.name},*) words='{' '.join(offered)}' ;;")
    values = []
    for how, names in takers.items():
        pattern = " | ".join(f"*,{name}" for name in sorted(names))
        values.append(f"        {pattern})\n            {how}\n            ;;")
    return _BASH.format(
        commands=" ".join(command.name for command in commands),
        values="\n".join(values),
        options="\n".join(words),
    )


def _bash_value(option: Option) -> str:
    if option.files:
        files = 'mapfile -t COMPREPLY < <(compgen -f -- "$word")'
        return f"compopt -o filenames\n            {files}\n            return"
    return f"words='{' '.join(option.words)}'" if option.words else "return"


def zsh(commands: Sequence[Command]) -> str:
    """Return the script for zsh."""
    described = [
        f"            {_quoted(f'{command.name}:{command.about}')}" for command in commands
    ]
    cases = []
    for command in commands:
        lines = [f"                {_quoted(_zsh_option(option))}" for option in command.options]
        arguments = " \\\n".join(["            _arguments", *lines])
        cases.append(f"        {command.name})\n{arguments}\n            ;;")
    return _ZSH.format(commands="\n".join(described), options="\n".join(cases))


def _zsh_option(option: Option) -> str:
    escape = str.maketrans({c: f"\\{c}" for c in "[]:\\"})
    value = ""
    if option.value is not None:
        offered = f"({' '.join(option.words)})" if option.words else "_files" * option.files
        value = f"{':' * (1 + option.optional)}{option.value.translate(escape)}:{offered or '()'}"
    if not option.name:
        return f"{'*' if option.repeated else '1'}{value}"
    about = option.about.translate(escape)
    return f"{'*' * option.repeated}{option.name}[{about}]{value}"


def fish(commands: Sequence[Command]) -> str:
    """Return the script for fish."""
    lines = []
    for command in commands:
        lines.append(
            f"complete -c healthmw -n __healthmw_at -a {command.name} -d {_quoted(command.about)}"
        )
        lines += [
            f"complete -c healthmw -n '__healthmw_at {command.name}'{_fish_option(option)}"
            for option in command.options
            if option.name or option.words
        ]
    return _FISH.format(commands="\n".join(lines))


def _fish_option(option: Option) -> str:
    offered = f" -a '{' '.join(option.words)}'" if option.words else ""
    if not option.name:
        return offered
    # fish knows no value that may be left out.
    value = "" if option.value is None or option.optional else " -rF" if option.files else " -x"
    return f" -l {option.name[2:]}{value}{offered} -d {_quoted(option.about)}"


def _quoted(text: str) -> str:
    """Return `text` in single quotes, as all of these shells read them."""
    return "'" + text.replace("'", "'\\''") + "'"
