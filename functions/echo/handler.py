"""Returns what it was sent."""


def handle(request):
    return {"echo": request.get_json(), "method": request.method}
