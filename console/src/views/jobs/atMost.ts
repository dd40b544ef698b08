/** Many requests, few at a time. */

export interface Outcome<T, R> {
  item: T;
  result?: R;
  error?: unknown;
}

/** Do the same with each item, `limit` of them at a time; a failure does not stop the others. */
export async function atMost<T, R>(limit: number, items: readonly T[], work: (item: T) => Promise<R>): Promise<Outcome<T, R>[]> {
  const outcomes: Outcome<T, R>[] = items.map((item) => ({ item }));
  let next = 0;
  const worker = async () => {
    while (next < outcomes.length) {
      const outcome = outcomes[next++]!;
      try {
        outcome.result = await work(outcome.item);
      } catch (error) {
        outcome.error = error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  return outcomes;
}
