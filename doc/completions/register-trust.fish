# fish completion of register-trust

complete -c register-trust -f
complete -c register-trust -x -l name -d 'display name of the trust (required)'
complete -c register-trust -x -l code -d 'short code, such as GSTT; required for a new trust'
complete -c register-trust -x -l region -d 'NHS region'
complete -c register-trust -l require-existing -d 'never register: fail if the trust is unknown'
complete -c register-trust -x -l out-ssm-parameter -d 'put the kit into this SSM parameter (SecureString)'
complete -c register-trust -l await-ack -d 'commit only once the reader has acknowledged the kit'
complete -c register-trust -x -l check-kit -d 'register nothing; print valid, worthless or unknown'
complete -c register-trust -s v -l verbose -d 'log every step (DEBUG), whatever LOG_LEVEL says'
complete -c register-trust -s q -l quiet -d 'log errors only; overrides -v'
complete -c register-trust -s h -l help -d 'print this help'
complete -c register-trust -s V -l version -d 'print the version'
