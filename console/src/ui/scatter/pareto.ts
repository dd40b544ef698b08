/** The Pareto front of points for which less x and more y is better. */

export interface Place {
  x: number;
  y: number;
}

/** Return the points that none other beats (at most its x with more y, or less x with as much), by ascending x. */
export function paretoFront<P extends Place>(points: readonly P[]): P[] {
  const byX = points
    .filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y))
    .sort((a, b) => a.x - b.x || b.y - a.y);
  const front: P[] = [];
  for (const point of byX) {
    const last = front.at(-1);
    if (last === undefined || point.y > last.y) front.push(point);
  }
  return front;
}

/** Return the corners of the front's step line, which goes on to `right`: up to there nothing is better than the last point. */
export function frontSteps(front: readonly Place[], right: number): Place[] {
  return front.flatMap((point, place) => {
    const next = front[place + 1];
    return [
      { x: point.x, y: point.y },
      { x: next?.x ?? Math.max(right, point.x), y: point.y },
    ];
  });
}
