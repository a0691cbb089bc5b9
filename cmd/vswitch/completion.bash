# bash completion for vswitch
_vswitch() {
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[@]:0:COMP_CWORD+1}" --generate-bash-completion 2>/dev/null))
}
complete -o default -F _vswitch vswitch
