"""Greets the caller: the smallest function that reads its input."""


def handle(request):
    data = request.get_json(silent=True)
    name = data.get("name", "World") if isinstance(data, dict) else "World"
    return {"message": f"Hello, {name}!", "data": data}
