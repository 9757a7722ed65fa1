"""Streams its answer line by line: `curl -N .../invoke/stream?count=5&delay=0.2`."""

import json
import time


def handle(request):
    count = min(int(request.args.get("count", 5)), 1000)
    delay = min(float(request.args.get("delay", 0.2)), 5.0)

    def lines():
        for number in range(1, count + 1):
            yield json.dumps({"number": number, "of": count}) + "\n"
            if number < count:
                time.sleep(delay)

    return lines(), 200, {"Content-Type": "application/x-ndjson"}
