# bash completion of register-trust

_register_trust() {
    local options='--name --code --region --require-existing --out-ssm-parameter
        --await-ack --check-kit
        -v --verbose -q --quiet -h --help -V --version'
    case ${COMP_WORDS[COMP_CWORD - 1]} in
        # Values are the operator's own.
        --name | --code | --region | --out-ssm-parameter | --check-kit) COMPREPLY=() ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$options" -- "${COMP_WORDS[COMP_CWORD]}") ;;
    esac
}
complete -F _register_trust register-trust
