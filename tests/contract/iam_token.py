# Checks an RDS IAM token against AWS's own signer, which signs the same request at the same second.
import sys
from urllib.parse import urlsplit, parse_qsl
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
token, secret, session = sys.argv[1:4]
split = urlsplit('https://' + token)
pairs = parse_qsl(split.query, strict_parsing=True)
query = dict(pairs)
assert len(query) == len(pairs), pairs
assert split.path == '/' and query['Action'] == 'connect' and query['DBUser'] == 'iam_user', query
assert query['X-Amz-Expires'] == '900' and query['X-Amz-SignedHeaders'] == 'host', query
signature = query.pop('X-Amz-Signature')
request = AWSRequest('GET', 'https://' + split.netloc + '/', params={'Action': 'connect', 'DBUser': 'iam_user'})
request.context['timestamp'] = query['X-Amz-Date']
signer = SigV4QueryAuth(Credentials('AKIDEXAMPLE', secret, session or None), 'rds-db', 'eu-west-2', expires=900)
signer._modify_request_before_signing(request)
own = dict(parse_qsl(urlsplit(request.url).query))
assert own == query, (own, query)
string = signer.string_to_sign(request, signer.canonical_request(request))
assert signer.signature(string, request) == signature, (signer.canonical_request(request), signature)
