"""Layered drawings of graphs without cycles: every edge goes to the right (Sugiyama et al. 1981)."""

SWEEPS = 8  # passes that reorder columns so that fewer edges cross


def layers(count, edges):
    """(columns, routes): which boxes stand in which column, and each edge's way through the columns.

    count: of boxes; edges: pairs (from, to), from < to in some order of making. An edge that crosses
    columns gets a place of its own in each, numbered from count on, so that no box lies in its way.
    """
    rank = [0] * count
    for a, b in sorted(edges, key=lambda e: e[1]):
        rank[b] = max(rank[b], rank[a] + 1)
    into = {b for _, b in edges}
    for a in range(count):  # what has no input stands right before its first use
        uses = [rank[b] for x, b in edges if x == a]
        if a not in into and uses:
            rank[a] = min(uses) - 1
    columns = [[] for _ in range(max(rank, default=0) + 1)]
    for box in range(count):
        columns[rank[box]].append(box)
    routes, links = [], []
    places = count
    for a, b in edges:
        way = [a]
        for column in range(rank[a] + 1, rank[b]):
            columns[column].append(places)
            way.append(places)
            places += 1
        way.append(b)
        routes.append(way)
        links += zip(way, way[1:], strict=False)
    _untangle(columns, links)
    return columns, routes


def _untangle(columns, links):
    """Order each column by the mean place of its neighbours, to the right and back again."""
    before, after = {}, {}
    for a, b in links:
        before.setdefault(b, []).append(a)
        after.setdefault(a, []).append(b)
    best, fewest = [list(c) for c in columns], _crossings(columns, links)
    for sweep in range(SWEEPS):
        near = after if sweep % 2 else before
        for column in reversed(columns) if sweep % 2 else columns:
            place = {box: i for c in columns for i, box in enumerate(c)}

            def middle(box):
                around = [place[n] for n in near.get(box, ())]
                return sum(around) / len(around) if around else place[box]

            column.sort(key=middle)
        crossings = _crossings(columns, links)
        if crossings < fewest:
            best, fewest = [list(c) for c in columns], crossings
    columns[:] = best


def _crossings(columns, links):
    """How many pairs of links between neighbouring columns cross."""
    at = {box: (x, y) for x, column in enumerate(columns) for y, box in enumerate(column)}
    total = 0
    for x in range(len(columns) - 1):
        ends = [(at[a][1], at[b][1]) for a, b in links if at[a][0] == x]
        total += sum(
            (p[0] - q[0]) * (p[1] - q[1]) < 0 for i, p in enumerate(ends) for q in ends[:i]
        )
    return total
