# Judges: a question on a line, an answer on a line.
import json, re, sys
def answer(kind, text):
    if kind == 'parameter':
        name = bytes.fromhex(text).decode(errors='surrogateescape')
        return len(name) < 1012 and re.fullmatch('(?!/(?i:aws|ssm))(/[A-Za-z0-9_.-]+){1,15}', name)
    if kind == 'id':
        id = bytes.fromhex(text).decode(errors='surrogateescape')
        return re.fullmatch('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', id, re.I | re.A)
    kit, = json.loads(text)
    shared = [key + '=' + value for key, value in kit['hub_shared'].items()]
    return '\0'.join([kit['trust_name']] + shared).encode().hex()
for line in sys.stdin:
    print(answer(*line.split(' ', 1)) or '', flush=True)
