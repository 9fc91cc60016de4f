# moto's server, which prints its port and ends with its stdin. It loads SSM with the first request,
# which can take longer than the program waits for one.
import sys
import boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
ssm = boto3.client('ssm', 'eu-west-2', endpoint_url=f'http://{host}:{port}',
                   aws_access_key_id='x', aws_secret_access_key='x')
ssm.put_parameter(Name='/first', Value='x', Type='SecureString')
ssm.delete_parameter(Name='/first')
print(port, flush=True)
sys.stdin.read()
