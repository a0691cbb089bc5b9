#compdef vswitch
_vswitch() {
    local -a candidates
    candidates=("${(@f)$("${(@)words[1,CURRENT]}" --generate-bash-completion 2>/dev/null)}")
    if [[ -n "${candidates[1]}" ]]; then
        compadd -a candidates
    else
        _files
    fi
}
if [[ "${funcstack[1]}" = _vswitch ]]; then
    _vswitch "$@"
else
    compdef _vswitch vswitch
fi
