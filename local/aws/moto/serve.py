"""Serve moto as one part of the local AWS: quietly, and with its Step Functions interpreter on.

    serve.py FD

FD is an inherited socket that listens already, so there is no port to race for and a client may connect at once.
MOTO_ACCOUNT_ID is the account moto answers for. MOTO_PORT must be the port of the front, not of that socket: moto's
Step Functions client calls every other service at http://localhost:$MOTO_PORT and has no other setting.

POST /moto-api/stepfunctions/restart forgets every execution, as nothing in AWS ever does: what waits for one waits in
vain. The state machines stay.
"""

import datetime
import importlib
import json
import logging
import os
import signal
import sys
import threading


def warm() -> None:
    """Import what the first requests would wait for, while the server already answers."""
    for name in ("dynamodb.urls", "s3.urls", "stepfunctions.urls", "stepfunctions.parser.models", "secretsmanager.urls", "sesv2.urls"):
        importlib.import_module(f"moto.{name}")


def restart_step_functions() -> int:
    """End what runs, without another step, and forget it. Returns how many executions there were."""
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    lost = 0
    for regions in list(stepfunctions_parser_backends.values()):
        for backend in list(regions.values()):
            for machine in list(backend.state_machines):
                executions, machine.executions = machine.executions, []
                for execution in executions:
                    lost += 1
                    # A thread that waits for a task token goes on waiting, but does nothing when it wakes up.
                    if execution.status == "RUNNING" and execution.exec_worker.env is not None:
                        now = datetime.datetime.now(tz=datetime.timezone.utc)
                        execution.stop(stop_date=now, error="Restarted", cause="")
    return lost


class Restartable:
    """Moto, with the one call it lacks."""

    def __init__(self, app) -> None:
        self.app = app

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] != "/moto-api/stepfunctions/restart":
            return self.app(environ, start_response)
        if environ["REQUEST_METHOD"] != "POST":
            start_response("405 Method Not Allowed", [("Allow", "POST")])
            return [b""]
        body = json.dumps({"lost": restart_step_functions()}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: serve.py FD, the number of an inherited listening socket")
    os.environ.setdefault("MOTO_ACCOUNT_ID", "111122223333")
    if "MOTO_PORT" not in os.environ:
        sys.exit("serve.py: MOTO_PORT must be the port of the front")

    # All state is in memory; there is nothing to say goodbye to, and threads that wait for a task need not delay it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    # One line a request would bury what matters; werkzeug still reports its errors.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    from moto.core.config import default_user_config

    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    default_user_config["lambda"] = {"use_docker": False}
    default_user_config["batch"] = {"use_docker": False}

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    app = Restartable(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler, fd=int(sys.argv[1]))
    threading.Thread(target=warm, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
