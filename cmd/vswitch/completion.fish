# fish completion for vswitch
function __vswitch_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l candidates (command $words --generate-fish-completion 2>/dev/null)
    if set -q candidates[1]
        printf '%s\n' $candidates
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c vswitch -f -a '(__vswitch_complete)'
