"""Runs moto's server on a free port of loopback, with a cluster and a task definition in it.

usage: moto_world.py REGION

Prints one line of JSON, {"endpoint", "cluster", "task_definition", "subnets", "security_groups"}, once it is ready;
ends when its standard input is closed.

moto gives tasks random addresses below 10.0.0.0/8, which may be somebody's: nobody may connect to them.
"""

import json
import logging
import os
import sys
import urllib.request

# Before moto is imported, which reads it then. moto serves the account of whatever credentials.
os.environ.setdefault("MOTO_ACCOUNT_ID", "123456789012")

import botocore.session
from botocore.config import Config
from moto.server import ThreadedMotoServer


def keep_running(endpoint):
    """Lets tasks stay RUNNING: by default each DescribeTasks takes them a step towards STOPPED."""
    body = {"model_name": "ecs::task", "transition": {"progression": "time", "seconds": 3600}}
    request = urllib.request.Request(
        f"{endpoint}/moto-api/state-manager/set-transition",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
        method="POST",
    )
    # Without the environment's proxies: this is loopback.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        if answer.status not in (200, 201):
            sys.exit(f"set-transition: HTTP {answer.status}")


def prepare(endpoint, region):
    """Makes what a launch needs, with AWS's own client."""
    session = botocore.session.Session()

    def client(service):
        return session.create_client(
            service,
            region_name=region,
            endpoint_url=endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(proxies={}, retries={"total_max_attempts": 1}),
        )

    ecs, ec2 = client("ecs"), client("ec2")
    ecs.create_cluster(clusterName="judged", capacityProviders=["FARGATE", "FARGATE_SPOT"])
    definition = ecs.register_task_definition(
        family="judged",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        # moto's RunTask answers HTTP 500 for containers without `memory`, which AWS does not need on Fargate.
        containerDefinitions=[{"name": "ci-coordinator", "image": "none", "memory": 512}],
    )["taskDefinition"]
    subnets = ec2.describe_subnets()["Subnets"]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    return {
        "endpoint": endpoint,
        "cluster": "judged",
        "task_definition": definition["taskDefinitionArn"],
        "subnets": [subnet["SubnetId"] for subnet in subnets],
        "security_groups": [groups[0]["GroupId"]],
    }


def main(region):
    """Serves until nobody needs it any more."""
    # Neither a line for each request nor the advice to use another server in production.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keep_running(endpoint)
    print(json.dumps(prepare(endpoint, region)), flush=True)
    sys.stdin.read()
    # Not by `server.stop()`, which would wait for idle connections.
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
