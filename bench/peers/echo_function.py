# The echo for functions-framework in Python, as compact as the others write it.
import json

import functions_framework


@functions_framework.http
def echo(request):
    return json.dumps(request.get_json(), separators=(",", ":")), {"Content-Type": "application/json"}
